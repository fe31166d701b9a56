"""A whole classifier as transformers' own sequence-classification model, where the architecture has one that computes the same.

Ours is the mean of the token vectors and one linear layer. EuroBERT's class and a few others can do that. BERT's and Gemma's take one
token's vector instead, and ModernBERT's normalises in between: they compute something else, whatever their weights.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING


def standard_classifier(encoder: nn.Module, head: nn.Linear, labels: list[int | str]) -> PreTrainedModel | None:
    """The model that ``AutoModelForSequenceClassification`` loads once it is saved; None where no class computes the same.

    It shares its weights with ``encoder``. An encoder with an adapter has none: merge the adapter first.
    """
    config: Any = copy.deepcopy(getattr(encoder, "config", None))
    if not hasattr(config, "classifier_pooling") or hasattr(encoder, "peft_config"):
        return None
    family = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING.get(type(config), None)
    if family is None:
        return None
    config.classifier_pooling = "mean"
    config.id2label = {index: str(label) for index, label in enumerate(labels)}
    config.label2id = {str(label): index for index, label in enumerate(labels)}
    config.problem_type = "single_label_classification"
    with torch.device("meta"):  # the encoder's weights are not made a second time
        network: Any = family(config)
    setattr(network, network.base_model_prefix, encoder)
    found: PreTrainedModel | None = network.eval() if _put_head(network, head) else None
    return found


def _put_head(network: Any, head: nn.Linear) -> bool:
    """Gives the model the weights of ``head``; False where the layers after its encoder cannot compute that."""
    after = [
        name for name, part in network.named_children() if name != network.base_model_prefix and _has_weights(part)
    ]
    weight, bias = head.weight.detach().float().cpu(), head.bias.detach().float().cpu()
    classes, width = weight.shape
    if after == ["classifier"]:
        network.classifier = _linear(weight, bias)
        return True
    activation = getattr(network, "activation", None)
    exact = isinstance(activation, nn.GELU) and activation.approximate == "none"
    if after != ["dense", "classifier"] or not exact or 2 * classes > width:
        return False
    # A linear layer through a GELU: gelu(x) = x Φ(x), so gelu(x) - gelu(-x) = x (Φ(x) + Φ(-x)) = x.
    rest = width - 2 * classes
    network.dense = _linear(
        torch.cat([weight, -weight, weight.new_zeros(rest, width)]), torch.cat([bias, -bias, bias.new_zeros(rest)])
    )
    one = torch.eye(classes)
    network.classifier = _linear(torch.cat([one, -one, one.new_zeros(classes, rest)], dim=1), bias.new_zeros(classes))
    return True


def _has_weights(part: nn.Module) -> bool:
    return next(part.parameters(), None) is not None


def _linear(weight: torch.Tensor, bias: torch.Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.load_state_dict({"weight": weight, "bias": bias})
    return layer
