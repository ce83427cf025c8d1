"""What a user can count on at the command line: exit codes, one JSON document, settings from a file, progress, help."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
import tomllib
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mgdm_cli import __version__, config, console, errors
from mgdm_cli.app import VERBS, main
from mgdm_cli.commands import options, values
from mgdm_cli.console import PlainBar, Result

ROOT = Path(__file__).resolve().parents[1]

Mount = Callable[[Callable[..., Result]], None]


@pytest.fixture
def mount(monkeypatch: pytest.MonkeyPatch) -> Mount:
    """Puts `run` behind `mgdm verify`, with the shared options."""

    def put(run: Callable[..., Result]) -> None:
        def command(
            data: options.Data,
            name: str = "none",
            rate: float = 0.5,
            flip: bool = False,
            size: options.Size = None,
            patient_regex: options.PatientRegex = None,
            seed: options.Seed = 0,
            device: options.Device = "auto",
        ) -> None:
            console.finish(run(data=data, name=name, rate=rate, flip=flip, size=size, seed=seed, device=device))

        module = types.ModuleType("mgdm_cli.commands.verify")
        vars(module)["command"] = command
        monkeypatch.setitem(sys.modules, module.__name__, module)

    return put


def echo(**settings: Any) -> Result:
    return Result(settings, (f"seed {settings['seed']}",))


def raising(error: BaseException) -> Callable[..., Result]:
    def run(**settings: Any) -> Result:
        raise error

    return run


CALL = ["verify", "--data", "somewhere"]

# --- exit codes -------------------------------------------------------------------------------------------------------

CODES = [
    (errors.UsageError("m"), 2),
    (errors.GateFailed("m"), 3),
    (errors.NeedsTraining("m"), 4),
    (errors.MgdmError("m", exit_code=errors.PARTIAL), 5),
    (errors.BadInput("m"), 65),
    (errors.MissingInput("m"), 66),
    (errors.IoFailed("m"), 74),
    (errors.FolderInUse("m"), 75),
    (errors.OtherPlan("m"), 78),
    (errors.Interrupted("m"), 143),
    (KeyboardInterrupt(), 130),
    (OSError(errno.ENOSPC, "No space left on device"), 74),
    (OSError(errno.EROFS, "Read-only file system"), 74),
    (OSError(errno.EIO, "Input/output error"), 74),
    (OSError(errno.EDQUOT, "Disk quota exceeded"), 74),
]


@pytest.mark.parametrize(("error", "code"), CODES, ids=lambda value: repr(value))
def test_each_kind_of_error_has_its_exit_code(
    mount: Mount, capfd: pytest.CaptureFixture[str], error: BaseException, code: int
) -> None:
    mount(raising(error))
    assert main(CALL) == code
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("mgdm: error: ")
    assert err.count("\n") == 1


def test_an_error_is_one_sentence_and_one_hint(mount: Mount, capfd: pytest.CaptureFixture[str]) -> None:
    mount(raising(errors.BadInput("image: a/1.png: is cut short", "Remove it, or use --skip-bad")))
    assert main(CALL) == 65
    assert capfd.readouterr().err == "mgdm: error: image: a/1.png: is cut short. Remove it, or use --skip-bad.\n"


def test_a_bug_is_one_line_and_its_traceback_is_in_the_log(
    mount: Mount, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    log = tmp_path / ".mgdm" / "log"

    def run(**settings: Any) -> Result:
        console.log_to(log)
        raise KeyError("PatientName DOE^JOHN")

    mount(run)
    assert main(CALL) == 1
    err = capfd.readouterr().err
    assert err == f"mgdm: error: a bug: KeyError. The traceback is in {log}.\n"
    assert "Traceback" in log.read_text()


def test_a_bug_without_an_output_folder_leaves_a_temporary_log(mount: Mount, capfd: pytest.CaptureFixture[str]) -> None:
    mount(raising(EOFError("from a parser, not from a prompt")))
    assert main(CALL) == 1
    name = Path(capfd.readouterr().err.strip().removesuffix(".").rpartition(" ")[2])
    assert "EOFError" in name.read_text()
    name.unlink()


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (MemoryError(), 74, "out of memory. The same command continues where there is more of it"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), 74, "out of memory. The same command"),
        (type("OutOfMemoryError", (RuntimeError,), {})("CUDA"), 74, "out of memory. The same command"),
        (FloatingPointError("the loss is nan at step 7"), 4, "the loss is nan at step 7. The same command continues"),
    ],
)
def test_what_the_machine_or_a_training_cannot_do_is_no_bug(
    error: Exception, code: int, said: str, mount: Mount, capfd: pytest.CaptureFixture[str]
) -> None:
    mount(raising(error))
    assert main(CALL) == code
    assert said in capfd.readouterr().err


def test_an_exit_code_of_a_result_is_the_exit_code(mount: Mount, capfd: pytest.CaptureFixture[str]) -> None:
    mount(lambda **settings: Result({}, ("partly done",), exit_code=errors.PARTIAL))
    assert main(CALL) == 5
    assert capfd.readouterr().out == "partly done\n"


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["nonsense"],
        ["verify"],
        [*CALL, "--nonsense"],
        [*CALL, "--seed", "x"],
        ["--nonsense"],
        [*CALL, "--seed", "-1"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_2(mount: Mount, words: list[str]) -> None:
    mount(echo)
    assert main(words) == 2


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--device", "gpu"),
        ("--size", "64x"),
        ("--size", "15"),
        ("--size", "64x8"),
        ("--patient-regex", "("),
        ("--patient-regex", "P.*"),
    ],
)
def test_values_are_checked_before_work_starts(
    mount: Mount, capfd: pytest.CaptureFixture[str], flag: str, value: str
) -> None:
    mount(raising(AssertionError("must not be called")))
    assert main([*CALL, flag, value]) == 2
    assert flag in capfd.readouterr().err


def test_a_misspelt_command_or_flag_names_the_nearest(mount: Mount, capfd: pytest.CaptureFixture[str]) -> None:
    mount(echo)
    assert main(["augmnt"]) == 2
    assert "'augment'" in capfd.readouterr().err
    assert main([*CALL, "--sed", "1"]) == 2
    assert "--seed" in capfd.readouterr().err


def test_sigterm_ends_with_143(mount: Mount, capfd: pytest.CaptureFixture[str]) -> None:
    def run(**settings: Any) -> Result:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
        return Result({})

    before = signal.getsignal(signal.SIGTERM)
    mount(run)
    assert main(CALL) == 143
    assert "The same command continues" in capfd.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is before


def test_commands_run_outside_the_main_thread(mount: Mount) -> None:
    mount(echo)
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(main([*CALL, "--quiet"])))
    thread.start()
    thread.join()
    assert codes == [0]


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["nonsense", "--json"]], ids=" ".join)
def test_a_reader_that_goes_away_gets_no_traceback(words: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "mgdm_cli", *words],
            cwd=ROOT,
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    finally:
        os.close(writing)
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert done.returncode == (2 if "--json" in words else 74)


# --- results ----------------------------------------------------------------------------------------------------------


def test_json_is_one_document_and_people_read_stderr(mount: Mount, capfd: pytest.CaptureFixture[str]) -> None:
    mount(echo)
    assert main([*CALL, "--json", "--seed", "7"]) == 0
    out, err = capfd.readouterr()
    assert json.loads(out)["seed"] == 7
    assert err == "seed 7\n"


@pytest.mark.parametrize("words", [["nonsense", "--json"], ["--json"], [*CALL, "--json", "--seed", "x"]], ids=" ".join)
def test_json_holds_for_wrong_usage(mount: Mount, capfd: pytest.CaptureFixture[str], words: list[str]) -> None:
    mount(echo)
    assert main(words) == 2
    document = json.loads(capfd.readouterr().out)
    assert set(document) == {"error", "hint", "exit_code"}
    assert document["exit_code"] == 2


def test_json_holds_for_errors(mount: Mount, capfd: pytest.CaptureFixture[str]) -> None:
    mount(raising(errors.NeedsTraining("no model fits", "Run mgdm train")))
    assert main([*CALL, "--json"]) == 4
    out, err = capfd.readouterr()
    assert json.loads(out) == {"error": "no model fits", "hint": "Run mgdm train", "exit_code": 4}
    assert err == "mgdm: error: no model fits. Run mgdm train.\n"


def test_json_has_no_nan_and_no_foreign_types() -> None:
    import numpy as np

    document = {
        "nan": float("nan"),
        "inf": np.float64("inf"),
        "count": np.int64(3),
        "row": np.array([1.5, np.nan]),
        "path": Path("a/b"),
        "tuple": (1, 2),
        "result": Result({"x": 1}),
        3: "key",
    }
    assert console.plain(document) == {
        "nan": None,
        "inf": None,
        "count": 3,
        "row": [1.5, None],
        "path": "a/b",
        "tuple": [1, 2],
        "result": {"document": {"x": 1}, "lines": [], "exit_code": 0},
        "3": "key",
    }
    with pytest.raises(TypeError, match="object has no JSON form"):
        console.plain({"x": object()})


def test_quiet_leaves_only_the_result(mount: Mount, capfd: pytest.CaptureFixture[str]) -> None:
    def run(**settings: Any) -> Result:
        console.say("a remark")
        with console.progress("work", 10, "steps") as bar:
            bar.advance(10)
        return Result({}, ("the result",))

    mount(run)
    assert main([*CALL, "--quiet"]) == 0
    assert capfd.readouterr() == ("the result\n", "")


def test_a_line_that_the_terminal_cannot_encode_is_escaped(capfd: pytest.CaptureFixture[str]) -> None:
    console.finish(Result({}, ("bad name \udce9",)))
    console.say("bad name \udce9")
    assert capfd.readouterr() == ("bad name \\udce9\n", "bad name \\udce9\n")


def test_tables_are_not_cut_when_stdout_is_no_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    from rich.table import Table

    table = Table("one", "two")
    table.add_row("x" * 60, "y" * 40)
    console.finish(Result({}, (table,)))
    assert "y" * 40 in capfd.readouterr().out


# --- progress ---------------------------------------------------------------------------------------------------------


def test_plain_progress_is_a_line_per_tenth_or_half_minute() -> None:
    lines: list[str] = []
    now = [0.0]
    bar = PlainBar("train", 1000, "steps", write=lines.append, clock=lambda: now[0])
    for _ in range(1000):
        now[0] += 0.01
        bar.advance(1)
    bar.close()
    assert len(lines) == 10
    assert lines[0] == "train: 10 % (100 of 1000 steps), 1 s gone, 9 s left"
    assert lines[-1] == "train: 100 % (1000 of 1000 steps), 10 s gone"

    lines.clear()
    slow = PlainBar("find", None, "files", write=lines.append, clock=lambda: now[0])
    for _ in range(4):
        now[0] += 20
        slow.advance(5, note="folder a")
    assert lines == ["find: 10 files, 40 s gone, folder a", "find: 20 files, 1 min 20 s gone, folder a"]


def test_the_eta_of_a_resumed_run_counts_only_new_work() -> None:
    lines: list[str] = []
    now = [0.0]
    bar = PlainBar("train", 100, "", done=80, write=lines.append, clock=lambda: now[0])
    now[0] = 10.0
    bar.advance(10)
    assert lines == ["train: 90 % (90 of 100), 10 s gone, 10 s left"]


def test_bars_are_for_terminals_only(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    with console.progress("work", 2, "steps") as bar:
        assert isinstance(bar, PlainBar)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with console.progress("work", 2, "steps") as bar, console.progress("part", 2) as inner:
        assert not isinstance(bar, PlainBar)
        assert not isinstance(inner, PlainBar)
        console.say("a remark between bars")
        bar.advance(2, note="well")
        inner.advance(1)
    monkeypatch.setenv("CI", "1")
    with console.progress("work", 2, "steps") as bar:
        assert isinstance(bar, PlainBar)
    assert capfd.readouterr().out == ""


# --- settings from a file ---------------------------------------------------------------------------------------------


def settings_of(mount: Mount, words: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}

    def run(**settings: Any) -> Result:
        found.update(settings)
        return Result({})

    mount(run)
    assert main(["verify", *words]) == 0
    return found


def test_flags_win_over_the_file_and_the_file_over_defaults(mount: Mount, tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text('data = "there"\nseed = 5\n--rate = 0.25\nflip = true\nsize = 64\n'.replace("--rate", '"--rate"'))
    found = settings_of(mount, ["--config", str(file), "--seed", "9"])
    assert found == {
        "data": Path("there"),
        "name": "none",
        "rate": 0.25,
        "flip": True,
        "size": "64",
        "seed": 9,
        "device": "auto",
    }
    assert settings_of(mount, ["--no-flip", "--config", str(file)])["flip"] is False


def test_keys_may_be_written_with_either_dash(mount: Mount, tmp_path: Path) -> None:
    for key in ("patient-regex", "patient_regex"):
        file = tmp_path / "s.toml"
        file.write_text(f'data = "d"\n{key} = "("\n')
        mount(echo)
        assert main(["verify", "--config", str(file)]) == 2  # it arrived, and was checked


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("sede = 1", "Did you mean 'seed'?"),
        ("patient-regexp = '(x)'", "Did you mean 'patient-regex'?"),
        ("zzzzzz = 1", "Known keys: "),
        ("config = 'x'", "unknown key 'config'"),
        ("seed = true", "needs a value"),
        ("flip = 'yes'", "needs true or false"),
        ("[verify]\nseed = 1", "unknown key 'verify'"),
        ("[seed]\nx = 1", "tables and dates"),
        ("seed = 2026-01-01", "tables and dates"),
        ("seed = [1, 2]", "seed"),
        ("seed = 1.5", "seed"),
        ("seed = ", "not valid TOML"),
        ("patient-regex = '(a)'\npatient_regex = '(b)'", "twice"),
        ("device = 'gpu'", "no device"),
    ],
)
def test_a_wrong_file_of_settings_is_refused(
    mount: Mount, capfd: pytest.CaptureFixture[str], tmp_path: Path, text: str, says: str
) -> None:
    file = tmp_path / "s.toml"
    file.write_text(text + "\n")
    mount(raising(AssertionError("must not be called")))
    assert main([*CALL, "--config", str(file)]) == 2
    assert says in capfd.readouterr().err


def test_a_missing_file_of_settings_is_66(mount: Mount, tmp_path: Path) -> None:
    mount(echo)
    assert main([*CALL, "--config", str(tmp_path / "none.toml")]) == 66
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    assert main([*CALL, "--config", str(tmp_path / "binary.toml")]) == 2
    assert main([*CALL, "--config", str(tmp_path)]) == 2


def test_json_and_quiet_may_stand_in_the_file(mount: Mount, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text("json = true\nquiet = true\n")
    mount(echo)
    assert main([*CALL, "--config", str(tmp_path / "s.toml")]) == 0
    out, err = capfd.readouterr()
    assert json.loads(out)["seed"] == 0
    assert err == ""


def test_resolved_settings_read_back_as_they_were(mount: Mount, tmp_path: Path) -> None:
    awkward = 'a "b" \\ c\n\t\x7f\x01 \U0001f600 é'
    wanted = settings_of(mount, [*CALL[1:], "--name", awkward, "--rate", "1e-7", "--flip", "--size", "64x48"])
    target = tmp_path / "config.resolved.toml"
    target.write_text(config.resolved_toml(wanted), encoding="utf-8", newline="\n")
    assert settings_of(mount, ["--config", str(target)]) == wanted
    assert config.resolved_toml(dict(reversed(list(wanted.items())))) == config.resolved_toml(wanted)


def test_resolved_toml_is_valid_and_leaves_out_what_is_not_a_setting() -> None:
    text = config.resolved_toml(
        {"a_b": [1, "x"], "none": None, "inf": float("inf"), "yes": True, "json": True, "quiet": True, "config": "c"}
    )
    assert tomllib.loads(text) == {"a-b": [1, "x"], "inf": float("inf"), "yes": True}
    with pytest.raises(errors.UsageError):
        config.resolved_toml({"name": "\udce9"})
    with pytest.raises(TypeError):
        config.resolved_toml({"name": object()})


# --- options, help ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "size"), [("64", (64, 64)), ("64x48", (64, 48)), (" 16X4096 ", (16, 4096)), (None, None)]
)
def test_sizes(text: str | None, size: tuple[int, int] | None) -> None:
    assert values.size_of(text) == size


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("30m", 1800), ("2h", 7200), ("1.5h", 5400), ("10", 600)])
def test_durations(text: str, seconds: float) -> None:
    assert values.seconds_of(text) == seconds


def test_version(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capfd.readouterr().out == f"mgdm {__version__}\n"


def test_help_names_every_command_in_full(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    out = capfd.readouterr().out
    for verb, summary in VERBS.items():
        assert f"  {verb} " in out
        assert summary in out


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_command_has_an_example_and_the_shared_flags(verb: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main([verb, "--help"]) == 0
    out = capfd.readouterr().out
    assert out.count(f"mgdm {verb} ") >= 2  # the usage line, and an example
    assert "--json" in out
    assert "--quiet" in out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shell_completion(shell: str) -> None:
    words = {"bash": ("COMP_WORDS", "COMP_CWORD")}.get(shell)
    environment = {**os.environ, "_MGDM_COMPLETE": f"complete_{shell}"}
    if words:
        environment |= {"COMP_WORDS": "mgdm aug", "COMP_CWORD": "1"}
    else:
        environment |= {"_TYPER_COMPLETE_ARGS": "mgdm aug", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    done = subprocess.run(
        [sys.executable, "-m", "mgdm_cli"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "augment" in done.stdout
