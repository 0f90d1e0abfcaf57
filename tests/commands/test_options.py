"""Every number on the command line is checked before any work, in one line that names its option."""

import argparse
import json
import re
import time

import pytest

from zfcuda import cli
from zfcuda.commands.numbers import Real, Sides, Whole

from .conftest import numbers_of, run, write_fruit

HOSTILE = ("-1", "0", "1e999", "-1e999", "nan", "inf", "1" + 30 * "0", "9" * 5000, "0x10", "1.5e3", "", "one")
# Where zero is a number like others, where 1.5e3 is, and where -1 is.
ZERO = {"--fill", "--seed", "--seeds", "--momentum", "--weight-decay", "--mean", "--warmup"}
REAL = {"--fill", "--lr", "--max-filter-rms", "--mean", "--std", "--scale"}
SIGNED = {"--fill", "--mean"}
# One of a list.
WORDS = {"--schedule", "--precision", "--gradients", "--exchange", "--device", "--split", "--rule", "--classifier"}
WORDS |= {"--methods", "--head"}
TEXTS = {"--data", "--out", "--layers", "--layer", "--image", "--label", "--variants", "--title", "--model"}
TEXTS |= {"--classes", "--output"}


def parsers():
    (commands,) = (a for a in cli.build_parser()._actions if isinstance(a, argparse._SubParsersAction))
    return commands.choices


def options():
    """(command, option, how many values it takes) for all that take a value and are no text."""
    for command, parser in parsers().items():
        for action in parser._actions:
            if action.option_strings and action.nargs != 0 and action.option_strings[-1] not in TEXTS:
                yield command, action, action.nargs if isinstance(action.nargs, int) else 1


NUMBERS = [(command, action.option_strings[-1], count) for command, action, count in options() if not action.choices]


def needed(command):
    """Words without which argparse would complain of something else."""
    parser = parsers()[command]
    return [word for action in parser._actions if action.required for word in (*action.option_strings[-1:], "nowhere")]


def test_every_option_is_known_to_this_test():
    assert len(NUMBERS) > 40
    assert {action.option_strings[-1] for _, action, _ in options() if action.choices} == WORDS
    for command, action, _ in options():
        assert action.choices or isinstance(action.type, (Whole, Sides, Real)), f"{command} {action.option_strings}"


@pytest.mark.parametrize(("command", "option", "count"), NUMBERS, ids=lambda value: str(value))
def test_what_is_no_number_or_out_of_range(command, option, count, tmp_path, capsys):
    started = time.perf_counter()
    for text in HOSTILE:
        if (text == "0" and option in ZERO) or (text == "1.5e3" and option in REAL):
            continue
        if text == "-1" and option in SIGNED:
            continue
        for place in range(count):
            values = ["1"] * count
            values[place] = text
            given = [f"{option}={text}"] if count == 1 else [option, *values]  # "-1e999" alone looks like an option
            out = ["--out", tmp_path / "out"] if command != "tune" else []
            assert run(command, *needed(command), *out, *given) == 2
            (line,) = capsys.readouterr().err.splitlines()
            assert line.startswith(f"zfcuda {command}: argument {option}: "), line
            assert len(line) < 200
    assert not (tmp_path / "out").exists()
    assert time.perf_counter() - started < 5


@pytest.mark.parametrize("command", ["faithfulness", "occlude"])
@pytest.mark.parametrize("text", ["grey", "Mean", "-1e7"])
def test_what_is_no_fill(command, text, tmp_path, capsys):
    assert run(command, *needed(command), "--out", tmp_path / "out", f"--fill={text}") == 2
    (line,) = capsys.readouterr().err.splitlines()
    limits = "must be a number, at least -1e+06 and at most 1e+06, or one of mean, blur, noise"
    assert line == f"zfcuda {command}: argument --fill: {limits}, got {text!r}"


@pytest.mark.parametrize("command", parsers())
def test_an_option_of_a_list(command, tmp_path, capsys):
    for _, action, _ in (found for found in options() if found[0] == command and found[1].choices):
        option = action.option_strings[-1]
        assert run(command, *needed(command), option, "other") == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert option in line


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("train", "--epochs", 2, "--track-evolution", 5, 10), "--track-evolution must be epochs up to 2, the last"),
        (("train", "--epochs", 2, "--track-evolution", 1, 3), "--track-evolution must be epochs up to 2, the last"),
        (("train", "--image-size", 100_000), "--image-size"),
        (("train", "--image-size", 4096), "--image-size"),
        (("train", "--clutter", 1_000_000), "--clutter"),
        (("train", "--clutter", 28), "--clutter must be larger than the images of 28 x 28, got 28"),
        (("train", "--first-layer", 29, 1), "--first-layer"),
        (("train", "--seed", -1), "--seed"),
        (("ablate", "--seeds", 3, 1, 3), "--seeds must be different"),
        (("ablate", "--clutter", 20), "--clutter"),
    ],
)
def test_options_that_do_not_fit_each_other_or_the_data(words, named, fruit, tmp_path, capsys):
    command, *options = words
    assert run(command, "--data", fruit, *options, "--quiet", "--out", tmp_path / "out") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert named in line
    assert not (tmp_path / "out").exists()


def test_epochs_to_track_that_are_over(tmp_path, capsys):
    fruit = write_fruit(tmp_path / "fruit", {"train": 2, "test": 1})
    words = ("--data", fruit, "--batch-size", 8, "--quiet", "--out", tmp_path / "net")
    assert run("train", *words, "--epochs", 2) == 0
    capsys.readouterr()
    assert run("train", *words, "--epochs", 3, "--resume", "--track-evolution", 1, 2) == 2
    assert "--track-evolution must have an epoch after 2" in capsys.readouterr().err
    assert run("train", *words, "--epochs", 3, "--resume", "--track-evolution", 2, 3) == 0
    assert numbers_of(tmp_path / "net")["Evolution"]["pool1"]["epochs"] == [3]


def test_a_rate_that_rises_before_it_falls(tmp_path):
    fruit = write_fruit(tmp_path / "fruit", {"train": 2, "test": 1})
    words = ("--data", fruit, "--epochs", 4, "--lr", 0.01, "--schedule", "cosine", "--warmup", 1, "--quiet")
    assert run("train", *words, "--out", tmp_path / "net") == 0
    rates = [epoch["lr"] for epoch in numbers_of(tmp_path / "net")["Training"]]
    assert rates == pytest.approx([0.005, 0.01 * (0.5 + 0.5**1.5), 0.005, 0.01 * (0.5 - 0.5**1.5)])


@pytest.mark.parametrize("command", ["visualize", "invariance", "features", "correspond", "occlude", "sanity"])
def test_layers_that_the_net_has_not(command, fruit_net, tmp_path, capsys):
    option = "--layer" if command in ("occlude", "sanity") else "--layers"
    words = [tmp_path / "parts.json"] if command == "correspond" else []
    assert run(command, fruit_net, *words, option, "conv99", "--out", tmp_path / "out") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "layer must be one of conv1, " in line
    assert "got 'conv99'" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["occlude", "sanity", "faithfulness"])
@pytest.mark.parametrize(("size", "shown"), [(29, "29"), ("1x29", "1 x 29"), ("29x1", "29 x 1")])
def test_a_square_larger_than_the_image(command, size, shown, fruit_net, tmp_path, capsys):
    assert run(command, fruit_net, "--size", size, "--out", tmp_path / "out") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(f"--size must be at most the image's 28 x 28, got {shown}")
    assert not (tmp_path / "out").exists()


def test_sides():
    sides = Sides(1, 99)
    assert [sides(text) for text in ("7", "1x16", "99x1")] == [7, (1, 16), (99, 1)]
    for text in ("x", "1x", "x1", "1x2x3", "100", "1x100", "0x1", "1 16", "1*16", "1x-1", "1x1.0"):
        message = re.escape(f"or two as in 1x16, height x width; got {text!r}")
        with pytest.raises(argparse.ArgumentTypeError, match=message):
            sides(text)


def test_pointing_at_more_images_than_there_are(tmp_path):
    fruit = write_fruit(tmp_path / "fruit", {"train": 2, "test": 1})
    words = ("--data", fruit, "--clutter", 32, "--epochs", 1, "--batch-size", 8, "--quiet", "--out", tmp_path)
    assert run("train", *words) == 0
    words = ("--images", 1, "--pointing", 10**9, "--size", 16, "--stride", 16, "--quiet", "--out", tmp_path / "o")
    assert run("occlude", tmp_path / "checkpoint.safetensors", *words) == 0
    assert len(numbers_of(tmp_path / "o")["Pointing"]["hits"]) == 4


@pytest.mark.parametrize(
    "box",
    [
        "[1e999, 0, 5, 5]",
        "[0, -1e999, 5, 5]",
        "[0, 0, NaN, 5]",
        "[0, 0, Infinity, 5]",
        "[0, 0, 1e300, 5]",
        f"[0, 0, {10**400}, 5]",
        "[0, 0, 0, 5]",
        "[0, 0, 5, -5]",
        "[true, 0, 5, 5]",
        '["0", 0, 5, 5]',
        "[0, 0, 5]",
    ],
)
def test_numbers_in_the_file_of_parts(box, fruit, fruit_net, tmp_path, capsys):
    name = json.dumps(str(fruit / "test" / "apple" / "0.png"))
    (tmp_path / "parts.json").write_text(f'{{{name}: {{"leaf": {box}}}}}')
    assert run("correspond", fruit_net, tmp_path / "parts.json", "--out", tmp_path / "out") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "parts.json: leaf of" in line
    assert "must be [top, left, height, width] in pixels" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("where", ["image", "part"])
def test_what_is_named_twice_in_the_file_of_parts(where, fruit, fruit_net, tmp_path, capsys):
    """JSON readers keep the last: an image would be missing."""
    images = [
        json.dumps(str(fruit / "test" / "apple" / f"{number}.png")) for number in (0, 0 if where == "image" else 1)
    ]
    boxes = '"leaf": [0, 0, 5, 5], "leaf": [9, 9, 5, 5]' if where == "part" else '"leaf": [0, 0, 5, 5]'
    (tmp_path / "parts.json").write_text("{" + ", ".join(f"{image}: {{{boxes}}}" for image in images) + "}")
    assert run("correspond", fruit_net, tmp_path / "parts.json", "--out", tmp_path / "out") == 2
    assert f"{'0.png' if where == 'image' else 'leaf'}' is named twice" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_too_little_memory_is_one_line(monkeypatch, capsys):
    def exhaust(arguments):
        raise MemoryError("Unable to allocate 9 PiB")

    monkeypatch.setattr("zfcuda.commands.info.run", exhaust)
    assert run("info") == 2
    assert capsys.readouterr().err == "zfcuda info: there is not enough memory for this: Unable to allocate 9 PiB\n"
