"""What requests may hold and answers do hold, for checks and for `/openapi.json`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model

from service.demo import JOB_RATES, SPEEDS

MOST_BATCH = 1000
MOST_ID = 2**53
MOST_NAME = 200


class Strict(BaseModel):
    """Numbers are numbers, and nothing unknown is passed over."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


Cpu = Annotated[float, Field(ge=1e-6, le=1e6, description="Cpu it needs, in the unit of the servers'.")]
Memory = Annotated[float, Field(ge=0, le=1e9, description="Memory it needs, in the unit of the servers'.")]
Seconds = Annotated[
    float,
    Field(ge=0.001, le=1e8, description="How long it will run on a server of speed 1, as far as is known."),
]
Name = Annotated[
    str, Field(max_length=MOST_NAME, pattern=r"^[^\x00-\x1f\x7f]*$", description="A name of your own.")
]


class JobIn(Strict):
    """A job."""

    cpu: Cpu
    memory: Memory
    estimateSeconds: Seconds | None = None
    name: Name | None = None


class ControlIn(Strict):
    """Changes of the demonstration; what is left out stays."""

    paused: bool | None = None
    speed: Annotated[float, Field(ge=SPEEDS[0], le=SPEEDS[1])] | None = None
    jobRate: Annotated[float, Field(ge=JOB_RATES[0], le=JOB_RATES[1])] | None = None
    reset: bool | None = None


def requests(strategies: Iterable[str]) -> tuple[Any, Any, Any]:
    """(one job, a batch, the demonstration's control), with the strategies that there are."""
    names: Any = Literal[tuple(strategies)]
    told = Field(default=None, description="Who decides; by default the service's own strategy.")
    one = create_model("ScheduleIn", __base__=JobIn, strategy=(names | None, told))
    jobs = (list[JobIn], Field(min_length=1, max_length=MOST_BATCH, description="In the order of decisions."))
    batch = create_model("BatchIn", __base__=Strict, jobs=jobs, strategy=(names | None, told))
    control = create_model("DemoControlIn", __base__=ControlIn, strategy=(names | None, told))
    return one, batch, control


class ErrorOut(BaseModel):
    """Something cannot be done."""

    detail: str


class FieldOut(BaseModel):
    """A field that is not right."""

    field: str
    value: Any
    allowed: str


class InvalidOut(BaseModel):
    """A request that is not right: in words, and field by field."""

    detail: str
    errors: list[FieldOut]


class JobOut(BaseModel):
    """A job."""

    id: int
    name: str
    cpu: float
    memory: float
    estimateSeconds: float
    strategy: str
    status: Literal["running", "queued", "rejected", "finished", "withdrawn"]
    server: str | None
    reason: str
    submittedAt: str
    startedAt: str | None
    endedAt: str | None
    endedBy: Literal["estimate", "report", "withdrawal"] | None
    waitSeconds: float


class ScoreOut(BaseModel):
    """How the strategy rates a server."""

    server: str
    fits: bool
    score: float | None


class ScheduleOut(JobOut):
    """What was decided on a job. scores: of all servers; empty where there was nothing to choose."""

    action: Literal["place", "hold", "reject"]
    scoreMeaning: str
    scores: list[ScoreOut]


class PlacedOut(JobOut):
    """The same in a batch, without scores."""

    action: Literal["place", "hold", "reject"]


class BatchOut(BaseModel):
    """Decisions in the order of the jobs."""

    jobs: list[PlacedOut]


class Amount(BaseModel):
    """Of cpu or memory."""

    used: float
    total: float


class ServerOut(BaseModel):
    """A server now."""

    name: str
    speed: float
    cpu: Amount
    memory: Amount
    jobs: int


class WaitingOut(BaseModel):
    """The queue; its first jobs."""

    length: int
    jobs: list[JobOut]


class StrategyOut(BaseModel):
    """One that can be chosen."""

    name: str
    description: str
    scoreMeaning: str


class CountsOut(BaseModel):
    """Jobs by status."""

    came: int
    queued: int
    running: int
    finished: int
    rejected: int
    withdrawn: int


class StatusOut(BaseModel):
    """The cluster now."""

    time: str
    strategy: str
    strategies: list[StrategyOut]
    ends: Literal["estimate", "report"]
    jobs: CountsOut
    servers: list[ServerOut]
    queue: WaitingOut


class StrategyStatsOut(CountsOut):
    """Figures of the jobs that a strategy decided on; null: none has finished."""

    strategy: str
    meanSlowdown: float | None
    meanWaitSeconds: float | None
    longestWaitSeconds: float
    utilisation: float


class StatsOut(CountsOut):
    """Figures since the state began."""

    since: str
    seconds: float
    meanSlowdown: float | None
    meanWaitSeconds: float | None
    longestWaitSeconds: float
    utilisation: float
    strategies: list[StrategyStatsOut]
