"""Public names of `umx_np.evaluation`: imported lazily, and seen by type checkers."""

from .bss import BssScores as BssScores
from .bss import bss_eval as bss_eval
from .runner import Evaluation as Evaluation
from .runner import evaluate as evaluate
from .scores import ScoresError as ScoresError
from .scores import TrackScores as TrackScores
from .scores import read_scores as read_scores
from .scores import score_track as score_track
from .sdr import score_files as score_files
from .summary import Summary as Summary
