"""docs/plan_64_gpus.md shows what its commands print; `python tests/modes/test_plan_64.py` writes it anew."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "plan_64_gpus.md"
SHOWN = re.compile(r"```bash\n(python run\.py [^\n]*)\n```\n\n```text\n(.*?)```", re.S)
# Of config.json of meta-llama/Llama-2-7b-hf, what decides its size.
MODEL = dict(
    model_type="llama", hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32,
    num_key_value_heads=32, vocab_size=32000, max_position_embeddings=4096, tie_word_embeddings=False,
)  # fmt: skip


def printed(command: str, folder: Path) -> str:
    """What a command of the page prints where the model's folder holds nothing but its config."""
    place = folder / "Llama-2-7b-hf"
    place.mkdir(exist_ok=True)
    (place / "config.json").write_text(json.dumps(MODEL))
    words = [sys.executable, ROOT / "run.py", *command.split()[2:], f"model.path={place}"]
    found = subprocess.run(words, cwd=folder, env=os.environ | {"COLUMNS": "120"}, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr[-2000:]
    return "".join(f"{line.rstrip()}\n" for line in found.stdout.splitlines())


@pytest.mark.slow
@pytest.mark.timeout(1800)  # half a minute of a quiet core for each
def test_the_page_shows_what_its_commands_print(tmp_path):
    shown = SHOWN.findall(PAGE.read_text("utf-8"))
    assert len(shown) == 2
    for command, text in shown:
        assert printed(command, tmp_path) == text


def test_every_number_of_the_page_stands_in_a_command_or_in_what_it_prints():
    text = PAGE.read_text("utf-8")
    shown = SHOWN.findall(text)
    known = set(re.findall(r"\d[\d,.]*\d|\d", " ".join(part for pair in shown for part in pair)))
    known |= {f"{int(one):,}" for one in known if one.isdigit()}
    named = {"7", "64", "100"}  # of the model's name and of the page's title, and a share of all
    prose = re.sub(r"`[^`]*`|\[[^\]]*\]\([^)]*\)", "", SHOWN.sub("", text))
    assert shown and set(re.findall(r"\d[\d,.]*\d|\d", prose)) <= known | named


def rewritten(folder: Path) -> str:
    """The page with what its commands print now."""
    return SHOWN.sub(
        lambda found: found[0].replace(f"```text\n{found[2]}```", f"```text\n{printed(found[1], folder)}```"),
        PAGE.read_text("utf-8"),
    )


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as scratch:
        PAGE.write_text(rewritten(Path(scratch)), encoding="utf-8")
