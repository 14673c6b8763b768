"""AWS's prices in us-east-1, on demand, of November 2026, and the limits that no price lifts.

No free tier is subtracted. Each price names the page of AWS that states it; prices change, so look there before you
decide by a figure.

Those of the relay (containers, balancer, addresses, data out) were looked up again on 27 November 2026. AWS's pages
show most of them by a script, so copies were read: of the balancer's page, of 20 September 2026, with its 0.0225 and
0.008; of the price list, of 16 October 2026, for addresses; and what others quote, of containers on ARM
(https://www.vantage.sh/blog/fargate-pricing) and of data out in April 2026
(https://leanopstech.com/blog/aws-data-transfer-pricing-2026/). They agree with the figures below.
"""

from typing import Final

MILLION: Final = 1e6
GB: Final = 1e9
INFINITY: Final = float("inf")

#: What each tier of a service holds, and what one of it costs: the first so many cost this each, the next ones that.
Tiers = tuple[tuple[float, float], ...]

#: https://aws.amazon.com/dynamodb/pricing/on-demand/
WRITE_UNIT_DOLLARS: Final = 0.625 / MILLION
READ_UNIT_DOLLARS: Final = 0.125 / MILLION
TABLE_GB_MONTH_DOLLARS: Final = 0.25
#: Point-in-time recovery, by the table's size. https://aws.amazon.com/dynamodb/pricing/on-demand/
RECOVERY_GB_MONTH_DOLLARS: Final = 0.20

#: https://aws.amazon.com/s3/pricing/ (S3 Standard)
S3_PUT_DOLLARS: Final = 0.005 / 1e3
S3_GET_DOLLARS: Final = 0.0004 / 1e3
S3_GB_MONTH_DOLLARS: Final = 0.023

#: https://aws.amazon.com/lambda/pricing/ (arm64)
LAMBDA_REQUEST_DOLLARS: Final = 0.20 / MILLION
LAMBDA_GB_S_TIERS: Final[Tiers] = ((7.5e9, 13.3334e-6), (11.25e9, 12.0001e-6), (INFINITY, 10.6667e-6))

#: https://aws.amazon.com/api-gateway/pricing/: REST requests, messages of up to 32 KB, minutes of connections.
API_REQUEST_TIERS: Final[Tiers] = (
    (333e6, 3.50 / MILLION),
    (667e6, 2.80 / MILLION),
    (19e9, 2.38 / MILLION),
    (INFINITY, 1.51 / MILLION),
)
SOCKET_MESSAGE_TIERS: Final[Tiers] = ((1e9, 1.00 / MILLION), (INFINITY, 0.80 / MILLION))
SOCKET_MINUTE_DOLLARS: Final = 0.25 / MILLION
SOCKET_MESSAGE_BYTES: Final = 32 * 1_024
#: A streamed answer is billed as a request for each 10 MB.
#: https://docs.aws.amazon.com/apigateway/latest/developerguide/response-transfer-mode.html
API_REQUEST_BYTES: Final = 10e6

#: https://aws.amazon.com/ec2/pricing/on-demand/ (data transfer out to the internet)
OUT_BYTE_TIERS: Final[Tiers] = (
    (10e12, 0.09 / GB),
    (40e12, 0.085 / GB),
    (100e12, 0.07 / GB),
    (INFINITY, 0.05 / GB),
)

#: https://aws.amazon.com/cloudfront/pricing/ (North America, HTTPS)
CDN_REQUEST_DOLLARS: Final = 0.01 / 1e4
CDN_BYTE_DOLLARS: Final = 0.085 / GB

#: https://aws.amazon.com/cloudwatch/pricing/: logs that are ingested, custom metrics, alarms, dashboards.
LOG_GB_DOLLARS: Final = 0.50
METRIC_MONTH_DOLLARS: Final = 0.30
ALARM_MONTH_DOLLARS: Final = 0.10
DASHBOARD_MONTH_DOLLARS: Final = 3.00

#: https://aws.amazon.com/xray/pricing/
TRACE_DOLLARS: Final = 5.00 / MILLION
#: The default rule: the first request of each second, and so much of the others.
#: https://docs.aws.amazon.com/xray/latest/devguide/xray-console-sampling.html
TRACE_RESERVOIR_S: Final = 1.0
TRACE_RATE: Final = 0.05

#: https://aws.amazon.com/secrets-manager/pricing/
SECRET_MONTH_DOLLARS: Final = 0.40
SECRET_REQUEST_DOLLARS: Final = 0.05 / 1e4

#: https://aws.amazon.com/fargate/pricing/ (Linux, ARM)
VCPU_HOUR_DOLLARS: Final = 0.03238
MEMORY_GB_HOUR_DOLLARS: Final = 0.00356
#: https://aws.amazon.com/elasticloadbalancing/pricing/ (Application Load Balancer). A capacity unit is 1 GB an hour,
#: 25 new connections a second, or 3,000 that are open, whichever asks for most.
BALANCER_HOUR_DOLLARS: Final = 0.0225
BALANCER_UNIT_HOUR_DOLLARS: Final = 0.008
BALANCER_UNIT_BYTES_HOUR: Final = 1 * GB
BALANCER_UNIT_CONNECTIONS: Final = 3_000
#: https://aws.amazon.com/vpc/pricing/ (a public IPv4 address that is in use)
IPV4_HOUR_DOLLARS: Final = 0.005

#: One partition takes no more, however many the table has, and one item is in one partition.
#: https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/warm-throughput-scenarios.html
PARTITION_WRITE_UNITS_S: Final = 1_000
PARTITION_READ_UNITS_S: Final = 3_000
#: A streamed answer is held to this after its first 10 MB.
#: https://docs.aws.amazon.com/apigateway/latest/developerguide/response-transfer-mode.html
STREAMED_BYTES_S: Final = 2e6
#: New accounts have at most this; it can be raised. https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
ENVIRONMENTS_AT_ONCE: Final = 1_000


def tiered_dollars(count: float, tiers: Tiers) -> float:
    """What a count costs when each tier has its own price."""
    dollars = 0.0
    for size, price_dollars in tiers:
        dollars += min(count, size) * price_dollars
        count = max(0.0, count - size)
    return dollars
