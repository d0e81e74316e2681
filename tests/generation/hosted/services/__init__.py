"""Each service's stand-in, beside the tests of what is its own."""

from tests.generation.hosted.services.test_ark import ArkStandIn
from tests.generation.hosted.services.test_dashscope import DashScopeStandIn
from tests.generation.hosted.services.test_fal import FalStandIn
from tests.generation.hosted.services.test_kling import KlingStandIn
from tests.generation.hosted.services.test_runway import RunwayStandIn
from tests.generation.hosted.services.test_veo import VeoStandIn
from tests.generation.hosted.stand_in import StandIn

STAND_INS: tuple[type[StandIn], ...] = (
    FalStandIn, RunwayStandIn, DashScopeStandIn, ArkStandIn, KlingStandIn, VeoStandIn,
)  # fmt: skip
