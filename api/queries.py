"""Questions that doors ask of a ledger: pages of read models, whose key it is, is it ready.

Everything in here waits for the database; an event loop asks it in a thread.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date, datetime
from itertools import islice
from typing import Any, get_args

import msgspec
from psycopg.rows import tuple_row

from api import asof
from api.asof import Moment
from api.keys import Holder
from ledger.log_writer import Connection
from ledger.store import Store
from migrations import migrations_of_this_version as shipped
from projections import replay
from projections.projection import Key, Projection
from projections.reader import ReadModels, Where
