"""What FakeTensorMode cannot do for a recipe, done around it: these seams, and no others, tell a run on the null GPU from a real one.

- weights of a base model: built of the config's shapes instead of read
- safetensors, sha256 of a file: without the data of fake tensors (weight_files.py)
- the check of the loss before step 1: it runs, and what it would conclude from values is left out
- what FSDP2's tensors work out with fake tensors of the whole shape: not counted as memory, since it is none on a real GPU
- torch.cuda.max_memory_… and so on: answered by the mode's own count
- tolist() and numpy() of a tensor: its known values
- free disk and host memory: plenty, since files with holes and fake tensors take none
"""

from __future__ import annotations

import shutil
import threading
from collections import namedtuple
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import peft
import peft.utils
import safetensors.torch
import torch
import transformers
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.distributed.fsdp._fully_shard import _fsdp_init, _fully_shard
from torch.distributed.tensor._sharding_prop import ShardingPropagator
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM
from transformers.initialization import no_init_weights

from remote_payload.train import files
from remote_payload.train.loop import loss_check
from remote_payload.train.model.classifier import Classifier
from remote_payload.train.state import host_memory, tensor_file
from tests.gpu.null import weight_files
from tests.gpu.null.known import assumed
from tests.gpu.null.mode import NullGpu
from tests.gpu.replaced import method_replaced, replaced

Usage = namedtuple("Usage", "total used free")
PLENTY = Usage(1 << 50, 0, 1 << 50)


@contextmanager
def null_gpu(mode: NullGpu) -> Iterator[NullGpu]:
    """Inside, recipes run on the null GPU."""
    with ExitStack() as stack:
        for seam in (models, weights, answers, values):
            stack.enter_context(seam(mode))
        stack.enter_context(mode)
        yield mode


@contextmanager
def models(mode: NullGpu) -> Iterator[None]:
    """Models are built of shapes, whoever builds them."""
    build = {auto: auto.from_config.__func__ for auto in (AutoModel, AutoModelForCausalLM)}

    def of_shapes(cls: Any, config: Any, **options: Any) -> Any:
        with mode.weights(), no_init_weights():
            model = build[cls](cls, config, **options)
            model.tie_weights()
        return model

    def without_reading(
        cls: Any, name: str, *, dtype: Any = None, attn_implementation: Any = None, **options: Any
    ) -> Any:
        config = AutoConfig.from_pretrained(name)
        attention = {"attn_implementation": attn_implementation} if attn_implementation else {}
        model = of_shapes(cls, config, dtype=dtype or torch.float32, **attention).eval()
        model.config._name_or_path = model.name_or_path = name
        return model

    def inside(build: Any) -> Any:
        def built(*arguments: Any, **options: Any) -> Any:
            with mode.weights():
                return build(*arguments, **options)

        return built

    with ExitStack() as stack:
        for auto in build:
            stack.enter_context(method_replaced(auto, "from_config", classmethod(of_shapes)))
            stack.enter_context(method_replaced(auto, "from_pretrained", classmethod(without_reading)))
        stack.enter_context(replaced(peft.get_peft_model, inside(peft.get_peft_model)))
        with_adapter = peft.PeftModel.from_pretrained.__func__
        stack.enter_context(method_replaced(peft.PeftModel, "from_pretrained", classmethod(inside(with_adapter))))
        stack.enter_context(method_replaced(Classifier, "__init__", inside(Classifier.__init__)))
        stack.enter_context(method_replaced(_fsdp_init, "_move_states_to_device", move_to_device))
        stack.enter_context(method_replaced(_fully_shard, "_move_states_to_device", move_to_device))
        yield


def move_to_device(parameters: Iterable[Tensor], buffers: Iterable[Tensor], device: torch.device) -> None:
    """As FSDP2 does it before it shards, which sets ``.data``: a fake tensor would keep its old device."""
    for tensor in (*parameters, *buffers):
        if tensor.device != device:
            with torch.no_grad():
                there = tensor.to(device)
            if isinstance(tensor, torch.nn.Parameter):
                there = torch.nn.Parameter(there, requires_grad=tensor.requires_grad)
            torch.utils.swap_tensors(tensor, there)


@contextmanager
def weights(mode: NullGpu) -> Iterator[None]:
    """Files of weights."""
    with ExitStack() as stack:
        for original, replacement in (
            (safetensors.torch.save_file, weight_files.save_file),
            (safetensors.torch.load_file, weight_files.load_file),
            (transformers.pytorch_utils.id_tensor_storage, weight_files.storage_of),
            (peft.utils.id_tensor_storage, weight_files.storage_of),
            (tensor_file.write_pieces, weight_files.write_pieces),
            (files._digest, weight_files.digest),
            (host_memory.available, lambda: PLENTY.free),
            (loss_check.explain, lambda model, found: None),
        ):
            stack.enter_context(replaced(original, replacement))
        stack.enter_context(method_replaced(shutil, "disk_usage", lambda path: PLENTY))
        yield


@contextmanager
def answers(mode: NullGpu) -> Iterator[None]:
    """What torch.cuda says about memory, and what waits for the device without being an operator."""
    memory = mode.memory

    def wait(*arguments: Any, **options: Any) -> None:
        if threading.current_thread() is threading.main_thread():  # the thread that saves may wait as it likes
            mode.waits.wait("synchronize")

    work_out = ShardingPropagator._propagate_tensor_meta_non_cached

    def not_counted(*arguments: Any, **options: Any) -> Any:
        with memory.not_counted():
            return work_out(*arguments, **options)

    with ExitStack() as stack:
        stack.enter_context(method_replaced(ShardingPropagator, "_propagate_tensor_meta_non_cached", not_counted))
        for name, answer in (
            ("max_memory_allocated", lambda *device: memory.peak),
            ("max_memory_reserved", lambda *device: memory.peak),
            ("memory_allocated", lambda *device: memory.live),
            ("memory_reserved", lambda *device: memory.live),
            ("reset_peak_memory_stats", lambda *device: memory.restart_peak()),
            ("mem_get_info", lambda *device: (memory.capacity - memory.live, memory.capacity)),
            ("synchronize", wait),
        ):
            stack.enter_context(method_replaced(torch.cuda, name, answer))
        for owner in (torch.cuda.Event, torch.cuda.Stream):
            stack.enter_context(method_replaced(owner, "synchronize", wait))
        yield


@contextmanager
def values(mode: NullGpu) -> Iterator[None]:
    """Methods of a tensor that read it without an operator."""
    resize = torch.UntypedStorage.resize_

    def tolist(tensor: FakeTensor) -> Any:
        if tensor.fake_device.type == "cuda":
            mode.waits.wait("tolist")
        found = assumed(tensor)
        return (torch.ones(tensor.shape, dtype=tensor.dtype) if found is None else found).tolist()

    def numpy(tensor: FakeTensor, **options: Any) -> Any:
        if tensor.fake_device.type == "cuda":
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        return assumed(tensor).numpy()

    def resized(storage: torch.UntypedStorage, size: int) -> torch.UntypedStorage:
        resize(storage, size)
        mode.memory.resized(storage)
        return storage

    with ExitStack() as stack:
        stack.enter_context(method_replaced(FakeTensor, "tolist", tolist))
        stack.enter_context(method_replaced(FakeTensor, "numpy", numpy))
        stack.enter_context(method_replaced(torch.UntypedStorage, "resize_", resized))
        yield
