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
    bill, _, transports = done.stdout.partition("\n\n")
    *lines, total = bill.splitlines()
    amounts = [float(line.split()[-1].replace(",", "")) for line in lines if not line.startswith("note")]
    assert total.startswith("total, $ a month")
    assert float(total.split()[-1].replace(",", "")) == pytest.approx(sum(amounts), abs=0.01 * len(amounts))
    assert {"DynamoDB writes", "API Gateway requests", "CloudWatch logs"} <= {line[:30].rstrip() for line in lines}
    first, *_, cheapest = transports.splitlines()[1:]
    assert cheapest == f"cheapest: {first.split()[0]}"


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
