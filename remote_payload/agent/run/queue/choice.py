"""Which of a box's GPUs suit a run: large enough, in order, and with their memory free."""

from typing import Container, List, NamedTuple

from remote_payload.agent.box.gpus import Gpu
from remote_payload.agent.run.queue.allotment import name

CROWDED = 10  # a GPU is crowded when more than a tenth of its memory is in use: a desktop takes less, training more


class Needs(NamedTuple):
    """What a run needs before it starts."""

    gpus: int
    vram: int = 0  # bytes of memory on each GPU, 0 where the job does not say
    disk: int = 0  # bytes that it will write to the box's disk, 0 where that is not known


def is_large_enough(gpu: Gpu, needs: Needs) -> bool:
    """Whether the GPU has the memory that the job asks for; one without memory of its own uses the machine's, and counts as large."""
    return not gpu.memory_total or gpu.memory_total >= needs.vram


def has_free_memory(gpu: Gpu, needs: Needs) -> bool:
    """Whether as much of its memory is free as the job asks for."""
    return not gpu.memory_total or gpu.memory_total - gpu.memory_used >= needs.vram


def is_crowded(gpu: Gpu) -> bool:
    """Whether more than a tenth of its memory is in use: where no run has it, by somebody else's process, or by one that is just ending."""
    return gpu.memory_used > gpu.memory_total // CROWDED


def choose(available: List[Gpu], taken: Container[str], needs: Needs, choosy: bool) -> List[Gpu]:
    """As many GPUs as the run needs, none when there are too few: large enough, not ``taken`` (by name), those whose memory is in use last,
    or (``choosy``) not at all.
    """
    free = [gpu for gpu in available if name(gpu) not in taken and is_large_enough(gpu, needs)]
    idle = [gpu for gpu in free if has_free_memory(gpu, needs) and not is_crowded(gpu)]
    pool = idle if choosy else idle + [gpu for gpu in free if gpu not in idle]
    return sorted(pool[: needs.gpus]) if len(pool) >= needs.gpus else []
