"""A transformer as its ``config.json`` describes it: widths, and how many parameters each part has.

Standard library only: the laptop forecasts with it what a box will need, before anything is rented or downloaded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

TIED_BY_DEFAULT = {"gpt2", "bert", "gemma3_text"}
FAMILIES = ("llama", "qwen2", "olmo2", "gemma3_text", "gpt2", "bert")


class Projection(NamedTuple):
    """The shape of a linear layer."""

    inputs: int
    outputs: int


@dataclass(frozen=True)
class Architecture:
    """Widths of one decoder or encoder. ``query`` and ``key_value`` are heads times head size."""

    family: str
    layers: int
    hidden: int
    heads: int
    head_size: int
    key_value_heads: int
    inner: int
    vocabulary: int
    positions: int  # learned position vectors; 0 where positions are rotary
    segments: int
    tied: bool  # the output head shares the embedding's weight
    attention_bias: bool
    mlp_bias: bool
    fused_activation: bool = False  # of a GPT-2: its gelu_new in one kernel, which keeps its input alone
    dropout: bool = False  # of what attention and MLP give

    @property
    def query(self) -> int:
        return self.heads * self.head_size

    @property
    def key_value(self) -> int:
        return self.key_value_heads * self.head_size

    @property
    def gated(self) -> bool:
        """Whether the MLP has a gate beside its up projection (SwiGLU, GeGLU)."""
        return self.family not in ("gpt2", "bert")

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Architecture:
        """From the object in ``config.json``. Raises ValueError for a family without formula, or a missing width."""
        config = config.get("text_config") or config  # multimodal Gemma 3 nests its language model
        family = str(config.get("model_type"))
        if family not in FAMILIES:
            raise ValueError(f"no formula for model_type {family!r} (known: {', '.join(FAMILIES)})")
        names = _ConfigNumbers(config, family)
        hidden, heads = names.whole("hidden_size", "n_embd"), names.whole("num_attention_heads", "n_head")
        return cls(
            family=family,
            layers=names.whole("num_hidden_layers", "n_layer"),
            hidden=hidden,
            heads=heads,
            head_size=names.whole("head_dim", default=256 if family == "gemma3_text" else hidden // heads),
            key_value_heads=names.whole("num_key_value_heads", default=heads),
            inner=names.whole("intermediate_size", "n_inner", default=4 * hidden if family == "gpt2" else None),
            vocabulary=names.whole("vocab_size"),
            positions=names.whole("max_position_embeddings", "n_positions") if family in ("gpt2", "bert") else 0,
            segments=names.whole("type_vocab_size", default=2) if family == "bert" else 0,
            tied=bool(config.get("tie_word_embeddings", family in TIED_BY_DEFAULT)),
            attention_bias=bool(config.get("attention_bias", False)),
            mlp_bias=bool(config.get("mlp_bias", False)),
            fused_activation=family == "gpt2" and config.get("activation_function") == "gelu_pytorch_tanh",
            dropout=bool(
                config.get(
                    {"gpt2": "resid_pdrop", "bert": "hidden_dropout_prob"}.get(family, ""), family in ("gpt2", "bert")
                )
            ),
        )

    def projections(self) -> dict[str, Projection]:
        """Each linear layer of a block, under the name that LoRA targets use."""
        shapes = self._projection_shapes()
        return {name: Projection(*shape) for name, shape in shapes.items()}

    def _projection_shapes(self) -> dict[str, tuple[int, int]]:
        h, q, kv, i = self.hidden, self.query, self.key_value, self.inner
        if self.family == "gpt2":  # both MLP and attention have a c_proj; peft matches them together
            return {"c_attn": (h, 3 * h), "attn.c_proj": (h, h), "c_fc": (h, i), "mlp.c_proj": (i, h)}
        if self.family == "bert":
            attention = {"query": (h, h), "key": (h, h), "value": (h, h), "attention.output.dense": (h, h)}
            return {**attention, "intermediate.dense": (h, i), "output.dense": (i, h)}
        attention = {"q_proj": (h, q), "k_proj": (h, kv), "v_proj": (h, kv), "o_proj": (q, h)}
        return {**attention, "gate_proj": (h, i), "up_proj": (h, i), "down_proj": (i, h)}


class _ConfigNumbers:
    """The positive whole numbers of a config, which families give different names."""

    def __init__(self, config: Mapping[str, Any], family: str) -> None:
        self.config, self.family = config, family

    def whole(self, *names: str, default: int | None = None) -> int:
        """The number under the first of ``names`` that has one. Raises ValueError without a default."""
        for name in names:
            value = self.config.get(name)
            if isinstance(value, int) and not isinstance(value, bool) and value > 0:
                return value
        if default is None:
            raise ValueError(f"config.json of a {self.family} model without {' or '.join(names)}")
        return default


@dataclass(frozen=True)
class Parameters:
    """How many parameters each part has."""

    embedding: int
    positions: int
    layers: int
    norms: int  # outside the layers
    head: int  # 0 where it is tied, or not there
    pooler: int

    @property
    def total(self) -> int:
        return self.embedding + self.positions + self.layers + self.norms + self.head + self.pooler


def count_parameters(model: Architecture, head: bool = True) -> Parameters:
    """Parameters of a model with its language model head, or of the bare encoder (``head=False``; BERT with pooler)."""
    h, v = model.hidden, model.vocabulary
    embedding_norm = 2 * h if model.family == "bert" else 0
    final_norm = {"gpt2": 2 * h, "bert": 0}.get(model.family, h)
    return Parameters(
        embedding=v * h,
        positions=(model.positions + model.segments) * h,
        layers=model.layers * _layer(model),
        norms=embedding_norm + final_norm,
        head=v * h if head and not model.tied else 0,
        pooler=h * h + h if model.family == "bert" and not head else 0,
    )


def _layer(model: Architecture) -> int:
    weights = sum(each.inputs * each.outputs for each in model.projections().values())
    return weights + _biases(model) + _norms(model)


def _biases(model: Architecture) -> int:
    h, q, kv, i = model.hidden, model.query, model.key_value, model.inner
    if not model.gated:
        return 3 * h + h + i + h
    attention = q + 2 * kv if model.family == "qwen2" else (q + 2 * kv + h) * model.attention_bias
    return attention + (2 * i + h) * (model.mlp_bias and model.family == "llama")


def _norms(model: Architecture) -> int:
    h = model.hidden
    return {
        "gpt2": 4 * h,  # two LayerNorms, weight and bias
        "bert": 4 * h,
        "olmo2": 2 * h + model.query + model.key_value,  # over whole projections
        "gemma3_text": 4 * h + 2 * model.head_size,  # over one head
    }.get(model.family, 2 * h)


def adapted_projections(model: Architecture, targets: str | Sequence[str]) -> list[Projection]:
    """Each linear layer of a block that ``targets`` names. A target is a whole name or its last parts, as in peft."""
    return [
        shape
        for name, shape in model.projections().items()
        if targets == "all-linear" or any(name == target or name.endswith("." + target) for target in targets)
    ]


def lora_parameters(model: Architecture, rank: int, targets: str | Sequence[str]) -> int:
    """Parameters of the LoRA matrices A (rank x inputs) and B (outputs x rank) of all layers."""
    return model.layers * rank * sum(each.inputs + each.outputs for each in adapted_projections(model, targets))
