"""The names of the package, with the module that each is in; `__init__.py` reads them here."""

from .activations.batches import encode_samples as encode_samples
from .activations.collect import collect_activation_norms as collect_activation_norms
from .api.compare import Verdicts as Verdicts
from .api.compare import compare as compare
from .api.evaluate import evaluate as evaluate
from .api.locate import locate as locate
from .common.errors import RunError as RunError
from .common.errors import UsageError as UsageError
from .data.calibration import CalibrationSet as CalibrationSet
from .data.calibration import read_calibration_set as read_calibration_set
from .edit.ablation import ablated as ablated
from .edit.ablation import head_means as head_means
from .edit.delta import Delta as Delta
from .edit.delta import added_delta as added_delta
from .edit.export import export_model as export_model
from .edit.scale import scaled as scaled
from .edit.training import trainable as trainable
from .evaluation.evaluation import Evaluation as Evaluation
from .localisation.patching_metrics import PromptPairs as PromptPairs
from .localisation.path_patching import head_effects as head_effects
from .masks.files import load_mask as load_mask
from .masks.head_units import find_heads as find_heads
from .masks.head_units import zero_mask as zero_mask
from .masks.mask import ParameterMask as ParameterMask
from .masks.overlap import by_kind as by_kind
from .masks.overlap import overlap_by_parameter as overlap_by_parameter
from .masks.overlap import total as total
from .methods.ranking import TopK as TopK
from .methods.twins import random_twin as random_twin
from .models.forward import context_length as context_length
from .models.forward import next_tokens as next_tokens
from .models.load import load_model as load_model
from .models.load import load_tokenizer as load_tokenizer
from .models.targets import find_targets as find_targets
from .prompts.arithmetic import arithmetic_pairs as arithmetic_pairs
from .prompts.pairs import PromptPair as PromptPair
from .prompts.pairs import keep_right as keep_right
from .prompts.pairs import tokenize_pairs as tokenize_pairs
from .report.results import figures as figures
from .report.results import plot_isolation as plot_isolation
from .report.results import read_results as read_results
from .settings.demo import DEMO as DEMO
from .settings.experiment import CalibrationSource as CalibrationSource
from .settings.experiment import ModelConfig as ModelConfig
from .verdicts.intervals import mcnemar as mcnemar
from .verdicts.intervals import paired_interval as paired_interval
from .verdicts.metrics import metric_from_documents as metric_from_documents

__version__: str
__all__: list[str]
