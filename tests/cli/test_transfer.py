"""`fluvial export` and `fluvial import`."""

from pathlib import Path

import pytest

from tests.cli.verbs import Shell
from tests.support.program import assert_command_failed, assert_usage_error


@pytest.fixture
def export(shell: Shell) -> Path:
    """A file with three streams, which are deleted."""
    shell.run("rm", "--prefix", "", "--yes")
    shell.output("create", "text")
    shell.output("append", "text", "ä", "b", "--close")
    shell.output("create", "json", "--json")
    shell.output("append", "json", "[1]", '"two"')
    shell.output("create", "bytes", "--content-type", "application/octet-stream")
    (shell.folder / "bytes").write_bytes(bytes(range(256)))
    shell.output("append", "bytes", "--file", str(shell.folder / "bytes"))
    path = shell.folder / "export"
    shell.output("export", "--all", "-o", str(path))
    shell.output("rm", "--prefix", "", "--yes")
    return path


def test_import_restores_what_was_exported(shell: Shell, export: Path) -> None:
    """Contents, types and closure. A repeated import doubles nothing."""
    for message in ("Imported text.", "text was imported before."):
        assert message in shell.run("import", str(export)).stderr
        assert shell.output("ls") == "bytes\njson\ntext\n"
        assert shell.output("read", "text") == "ä\nb\n"
        assert shell.output("read", "json") == '[1]\n"two"\n'
        assert len(shell.output("read", "bytes", "-o", "base64")) == 345
        assert_command_failed(shell.run("append", "text", "c"), "closed")


def test_import_of_one_stream_may_have_another_name(shell: Shell, export: Path) -> None:
    """From standard input; a file with more streams has no room for a name."""
    shell.output("import", str(export))
    shell.output("import", "copy", "-", piped=shell.output("export", "json"))
    assert shell.output("read", "copy") == shell.output("read", "json")
    assert_usage_error(shell.run("import", "copy", str(export)), "3 streams")


def test_import_changes_no_stream_with_other_contents(shell: Shell, export: Path) -> None:
    """The stream may be the very one that was exported."""
    shell.output("create", "json", "--json")
    shell.output("append", "json", "[1]", '"two"')
    assert_command_failed(shell.run("import", str(export)), "json exists, and is not of this import")
    assert shell.output("read", "json") == '[1]\n"two"\n'


@pytest.mark.parametrize("name", ["text", "json"])
def test_import_into_a_closed_stream_of_another_origin_names_it(shell: Shell, export: Path, name: str) -> None:
    """Whether or not the exported one was closed."""
    shell.output("create", name, *(["--json"] if name == "json" else []))
    shell.output("append", name, '"other"', "--close")
    failed = shell.run("import", str(export))
    assert_command_failed(failed, f"{name} exists, and is not of this import")
    assert shell.output("read", name) == '"other"\n'


def test_export_that_was_cut_off_or_changed_is_refused(shell: Shell, export: Path) -> None:
    """At each line, before anything is created."""
    whole = export.read_text()
    lines = whole.splitlines(keepends=True)
    for count in range(len(lines)):
        if not lines[count].startswith('{"export"') or not count:
            export.write_text("".join(lines[:count]))
            assert_command_failed(shell.run("import", str(export)), "" if count else "empty")
    export.write_text(whole[:-10])
    assert_command_failed(shell.run("import", str(export)), "cut off")
    export.write_text(whole.replace("two", "one"))
    assert_command_failed(shell.run("import", str(export)), "checksum of json is wrong")
    assert shell.output("ls") == ""
