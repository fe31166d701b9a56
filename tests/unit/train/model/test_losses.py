import json
import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from remote_payload.train.data.packing import IGNORED, counted_positions
from remote_payload.train.model.causal import chunked_cross_entropy, chunked_log_probabilities, chunked_scores


def batch(rows=37, width=16, vocabulary=101, dtype=torch.float32):
    torch.manual_seed(0)
    hidden = torch.randn(rows, width, dtype=dtype, requires_grad=True)
    weight = torch.randn(vocabulary, width, dtype=dtype, requires_grad=True)
    targets = torch.randint(vocabulary, (rows,))
    targets[::3] = IGNORED
    return hidden, weight, targets


@pytest.mark.parametrize("chunk_rows", [1, 5, 25, 1000])
def test_loss_and_both_gradients_equal_torchs_whatever_the_chunk(chunk_rows):
    hidden, weight, targets = batch(dtype=torch.float64)
    loss = chunked_cross_entropy(hidden, weight, targets, chunk_rows).sum
    (3.0 * loss).backward()
    reference_hidden, reference_weight, _ = batch(dtype=torch.float64)
    reference = F.cross_entropy(reference_hidden @ reference_weight.T, targets, reduction="sum")
    (3.0 * reference).backward()
    torch.testing.assert_close(loss.double(), reference, rtol=1e-6, atol=1e-6)
    # the softmax is fp32 inside, hence not float64's tolerance
    torch.testing.assert_close(hidden.grad, reference_hidden.grad, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(weight.grad, reference_weight.grad, rtol=1e-5, atol=1e-5)


def test_ignored_targets_count_nowhere_and_right_guesses_are_counted():
    hidden, weight, targets = batch()
    guesses = (hidden @ weight.T).argmax(-1)
    targets[1::3] = guesses[1::3]
    result = chunked_cross_entropy(hidden, weight, targets, 7)
    assert result.count == (targets != IGNORED).sum()
    assert result.correct == (guesses == targets).sum() > 0
    chunked_cross_entropy(hidden, weight, targets, 7).sum.backward()
    assert (hidden.grad[::3] == 0).all()


def test_a_batch_with_nothing_to_learn_has_no_loss_and_zero_gradients():
    hidden, weight, targets = batch()
    result = chunked_cross_entropy(hidden, weight, torch.full_like(targets, IGNORED))
    result.sum.backward()
    assert result.sum == 0 and result.count == 0
    assert (hidden.grad == 0).all()


def test_a_frozen_head_gets_no_gradient_and_costs_none():
    hidden, weight, targets = batch()
    chunked_cross_entropy(hidden, weight.detach(), targets, 5).sum.backward()
    assert hidden.grad is not None and weight.grad is None


def test_under_autocast_the_product_is_bf16_and_the_loss_fp32():
    hidden, weight, targets = batch(vocabulary=1001)
    with torch.autocast("cpu", torch.bfloat16):
        loss = chunked_cross_entropy(hidden, weight, targets, 5).sum
        reference = F.cross_entropy((hidden @ weight.T).float(), targets, reduction="sum")
    exact = F.cross_entropy(hidden @ weight.T, targets, reduction="sum")
    loss.backward()
    assert loss.dtype == torch.float32 and hidden.grad.dtype == torch.float32
    torch.testing.assert_close(loss, reference, rtol=1e-6, atol=0)
    assert loss != exact


def test_log_probabilities_and_their_gradient_equal_torchs():
    hidden, weight, targets = batch()
    kept = targets != IGNORED
    scale = torch.linspace(-1, 1, int(kept.sum()))
    (chunked_log_probabilities(hidden, weight, targets, 5) * scale).sum().backward()
    reference_hidden, reference_weight, _ = batch()
    logits = (reference_hidden @ reference_weight.T)[kept]
    chosen = F.log_softmax(logits, -1).gather(-1, targets[kept].unsqueeze(-1)).squeeze(-1)
    (chosen * scale).sum().backward()
    torch.testing.assert_close(chunked_log_probabilities(hidden, weight, targets, 5), chosen)
    torch.testing.assert_close(hidden.grad, reference_hidden.grad)
    torch.testing.assert_close(weight.grad, reference_weight.grad)


MEASURE = """
import json, torch
from remote_payload.train.model.causal import chunked_cross_entropy
torch.set_num_threads(1)
rows, vocabulary = 1024, 150_000
hidden, weight = torch.randn(rows, 16), torch.randn(vocabulary, 16)
targets = torch.randint(vocabulary, (rows,))
def resident(name):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(name))
def peak_of(compute):
    open("/proc/self/clear_refs", "w").write("5")  # the high-water mark starts again at what is resident now
    before = resident("VmRSS")
    compute()
    return resident("VmHWM") - before
chunked_cross_entropy(hidden[:1], weight, targets[:1], 1)  # what the libraries load on first use
with torch.no_grad():
    chunked = peak_of(lambda: chunked_cross_entropy(hidden, weight, targets))
    whole = peak_of(lambda: hidden @ weight.T)
print(json.dumps({"chunked": chunked, "whole": whole, "logits": rows * vocabulary * 4}))
"""


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="no resettable high-water mark of memory")
def test_evaluating_a_vocabulary_of_150_000_peaks_below_a_quarter_of_the_whole_logits():
    # What is freed goes back to the kernel at once: what malloc keeps for later made the peak differ from run to run.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MKL_DISABLE_FAST_MM": "1"}
    output = subprocess.run(
        [sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True, timeout=120, env=environment
    )
    measured = json.loads(output.stdout)
    assert measured["whole"] >= 0.95 * measured["logits"]  # the ruler itself works
    assert measured["chunked"] <= 0.25 * measured["logits"], measured


def test_a_second_backward_pass_is_refused_since_the_first_multiplied_the_stored_gradients_in_place():
    hidden, weight, targets = batch()
    loss = chunked_cross_entropy(hidden, weight, targets, 5).sum
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_positions_that_come_with_the_batch_give_what_those_found_in_it_do():
    hidden, weight, targets = batch()
    for measure in (chunked_cross_entropy, chunked_scores):
        found = measure(hidden, weight, targets, 5, counted_positions(targets))
        for ours, theirs in zip(found, measure(hidden, weight, targets, 5), strict=True):
            assert torch.equal(ours, theirs)
    given = chunked_log_probabilities(hidden, weight, targets, 5, counted_positions(targets))
    assert torch.equal(given, chunked_log_probabilities(hidden, weight, targets, 5))
