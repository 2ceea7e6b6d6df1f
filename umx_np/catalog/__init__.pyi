"""Public names of `umx_np.catalog`."""

from .cluster import run as run
from .ledger import Ledger as Ledger
from .ledger import Status as Status
from .plan import Item as Item
from .plan import Plan as Plan
from .plan import make_plan as make_plan
from .plan import read_plan as read_plan
from .shards import run_shard as run_shard
