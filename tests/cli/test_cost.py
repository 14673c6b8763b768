"""`fluvial cost`: a bill by lines, as text and as JSON, and loads that AWS cannot carry."""

import msgspec
import pytest
from click.testing import CliRunner, Result

from fluvial.cli.cost import BYTES_MAX
from fluvial.cli.main import main
from tests.aws_local.template import load_properties


def run(*words: str) -> Result:
    """Run the command."""
    return CliRunner().invoke(main, ["cost", *words], prog_name="fluvial")


def test_cost_prints_lines_that_add_up_to_the_total_and_the_cheapest_transport() -> None:
    """Each line ends with its dollars, rounded to cents."""
    done = run("--writes", "5", "--bytes", "300", "--readers", "200")
    assert done.exit_code == 0
    load, bill, transports = done.stdout.split("\n\n")
    assert load.splitlines() == ["5 appends a second of 300 bytes to 1 stream", "200 live readers, served by relay"]
    heading, *lines, total = bill.splitlines()
    assert heading.split() == ["a", "month", "of", "30", "days", "$"]
    amounts = [float(line.split()[-1].replace(",", "")) for line in lines]
    assert total.startswith("total ")
    assert float(total.split()[-1].replace(",", "")) == pytest.approx(sum(amounts), abs=0.01 * len(amounts))
    assert {"DynamoDB writes", "API Gateway requests", "CloudWatch logs"} <= {line[:30].rstrip() for line in lines}
    first, *_, cheapest = transports.splitlines()[1:]
    assert cheapest == f"cheapest: {first.split()[0]}"


def test_cost_says_which_load_it_is_for() -> None:
    """Streams, writers and other requests, each when there is more than the least."""
    words = ("--writes", "1", "--bytes", "1", "--streams", "2000", "--writers", "16", "--requests", "2.5")
    load, _ = run(*words).stdout.split("\n\n", 1)
    assert load.splitlines() == [
        "1 append a second of 1 byte to 2,000 streams, each with 16 writers at the same time",
        "2.5 other requests a second",
    ]
    assert run("--writers", "4").stdout.startswith(
        "1 append a second of 100 bytes to 1 stream with 4 writers at the same time\n"
    )


def test_cost_says_why_a_transport_cannot_serve_the_readers() -> None:
    """Beside those that can; what no transport could change is said once, as the error."""
    done = run("--readers", "2000")
    reasons = [line for line in done.stdout.splitlines() if " cannot exist: " in line]
    assert {line.split()[0] for line in reasons} == {"sse", "long-poll"}
    assert done.exit_code == 0
    done = run("--readers", "3", "--writes", "5000")
    assert " cannot exist: " not in done.stdout
    assert "write units a second" in done.stderr


def test_cost_prints_json() -> None:
    """With all transports, and the workload as it was understood."""
    told = msgspec.json.decode(run("--readers", "10", "--transport", "sse", "-o", "json").stdout)
    assert (told["writesPerSecond"], told["bytesPerWrite"], told["readers"]) == (1.0, 100, 10)
    assert told["transport"] == "sse"
    assert told["transports"].keys() == {"sse", "long-poll", "long-poll-cdn", "websocket", "relay"}
    assert told["transports"]["sse"]["dollars"] == told["dollarsPerMonth"]
    assert sum(line["dollars"] for line in told["lines"]) == pytest.approx(told["dollarsPerMonth"], abs=0.01)
    assert min(one["dollars"] for one in told["transports"].values()) == told["transports"][told["cheapest"]]["dollars"]


def test_largest_append_is_what_the_edge_function_takes() -> None:
    """The body's limit of the template."""
    functions = load_properties("AWS::Serverless::Function")
    largest = functions["EdgeFunction"]["Environment"]["Variables"]["FLUVIAL_MAX_BODY"]
    assert int(largest) == BYTES_MAX
    assert run("--bytes", largest).exit_code == 0


def test_cost_without_readers_names_no_transport() -> None:
    """Neither as text nor as JSON."""
    assert "transport" not in run().stdout
    assert "transports" not in msgspec.json.decode(run("-o", "json").stdout)


def test_cost_of_traces_and_detailed_metrics_is_on_the_bill_when_they_are_on() -> None:
    """By default they are off, as in the stack."""
    assert "X-Ray" not in run().stdout
    assert "X-Ray" in run("--traces").stdout
    assert run("--detailed-metrics").stdout != run().stdout


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--readers", "5000", "--transport", "sse"), "read units a second"),
        (("--writes", "5000"), "write units a second"),
    ],
)
def test_cost_of_a_load_that_cannot_exist_fails_and_says_why(words: tuple[str, ...], reason: str) -> None:
    """The exit status is 1, and no bill is printed."""
    done = run(*words)
    assert done.exit_code == 1
    assert "AWS cannot carry this load" in done.stderr
    assert reason in done.stderr
    assert "total" not in done.stdout


@pytest.mark.parametrize(
    "words",
    [
        ("--writes", "-1"),
        ("--writes", "nan"),
        ("--writes", "inf"),
        ("--bytes", "0"),
        ("--bytes", "4456449"),
        ("--readers", "some"),
        ("--transport", "pigeon", "--readers", "1"),
        ("--transport", "sse"),
    ],
)
def test_cost_refuses_what_is_no_load(words: tuple[str, ...]) -> None:
    """As a usage error."""
    assert run(*words).exit_code == 2
