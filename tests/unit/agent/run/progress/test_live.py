"""The libraries that are installed here, run with their output in a file as on a box: what they print today is read."""

import importlib.util
import subprocess
import sys

import pytest

from remote_payload.agent.run.progress.parser import Parser, one_a_step

TQDM = """
from tqdm import tqdm
for epoch in range(2):
    with tqdm(range(30), desc=f"Epoch {epoch + 1}/2", mininterval=0) as bar:
        for step in bar:
            bar.set_postfix(loss=f"{2 - step / 100:.2f}", refresh=False)
"""
TRAINER = """
import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments
model = GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=1, n_embd=8, vocab_size=32, n_positions=16, bos_token_id=0, eos_token_id=0))
rows = [{"input_ids": torch.zeros(8, dtype=torch.long), "labels": torch.zeros(8, dtype=torch.long)} for _ in range(48)]
settings = dict(num_train_epochs=1, per_device_train_batch_size=4, logging_steps=3, eval_strategy="steps", eval_steps=6, save_strategy="no")
Trainer(model, TrainingArguments("out", report_to=[], use_cpu=True, **settings), train_dataset=rows, eval_dataset=rows[:8]).train()
"""
LIGHTNING = """
import lightning, torch
class Model(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)
    def training_step(self, batch, number):
        loss = self.layer(batch).pow(2).mean()
        self.log("train_loss", loss, prog_bar=True)
        return loss
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.01)
bar = lightning.pytorch.callbacks.TQDMProgressBar(refresh_rate=2)
trainer = lightning.Trainer(max_epochs=2, accelerator="cpu", callbacks=[bar], logger=False, enable_checkpointing=False)
trainer.fit(Model(), torch.utils.data.DataLoader(torch.randn(40, 4), batch_size=4))
"""


def printed(program, folder):
    with open(folder / "log", "wb") as log:
        subprocess.run([sys.executable, "-c", program], stdout=log, stderr=log, cwd=folder, check=True)
    parser = Parser(["auto"])
    return [each.told for each in one_a_step([*parser.feed((folder / "log").read_bytes()), *parser.rest()])]


def test_tqdm(tmp_path):
    last = printed(TQDM, tmp_path)[-1].step
    assert (last["step"], last["total"], last["loss"], last["epoch"]) == (60, 60, 1.71, 2.0)


@pytest.mark.slow
def test_the_trainer(tmp_path):
    told = printed(TRAINER, tmp_path)
    losses = {each.step["step"] for each in told if "loss" in each.step}
    assert losses == {3, 6, 9, 12} and {each.step["total"] for each in told} == {12}
    assert [each.step["step"] for each in told if each.evaluation] == [6, 12]


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("lightning") is None, reason="lightning is not installed")
def test_lightning(tmp_path):
    last = printed(LIGHTNING, tmp_path)[-1].step
    assert last["step"] == 20 and last["epoch"] == 2.0 and last["loss"] > 0 and last["total"] is None
