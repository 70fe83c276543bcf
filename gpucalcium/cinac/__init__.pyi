from .annotating import write_recording as write_recording
from .annotating import write_segment as write_segment
from .benchmarks import benchmark_activity as benchmark_activity
from .cell_types import read_cell_type_categories_yaml_file as read_cell_type_categories_yaml_file
from .cinac_file import CinacFileReader as CinacFileReader
from .cinac_file import CinacFileWriter as CinacFileWriter
from .evaluation import activity_predictions_from_cinac_files as activity_predictions_from_cinac_files
from .evaluation import evaluate_cell_type_predictions as evaluate_cell_type_predictions
from .fusion import fusion_cell_type_predictions as fusion_cell_type_predictions
from .fusion import fusion_cell_type_predictions_by_type as fusion_cell_type_predictions_by_type
from .fusion import (
    select_activity_classifier_on_cell_type_outputs as select_activity_classifier_on_cell_type_outputs,
)
from .metrics import ActivityStats as ActivityStats
from .metrics import Scores as Scores
from .metrics import compute_stats_over_gt as compute_stats_over_gt
from .model import CinacModel as CinacModel
from .movies import CinacDataMovie as CinacDataMovie
from .movies import CinacFileReaderMovie as CinacFileReaderMovie
from .movies import CinacMovie as CinacMovie
from .movies import CinacTiffMovie as CinacTiffMovie
from .patch_data import MoviePatchData as MoviePatchData
from .prediction import predict_activity as predict_activity
from .prediction import predict_cell_type_from_model as predict_cell_type_from_model
from .prediction import predict_cell_types as predict_cell_types
from .prediction import predict_transient_from_model as predict_transient_from_model
from .predictor import CinacPredictor as CinacPredictor
from .recording import CinacRecording as CinacRecording
from .recording import (
    create_cinac_recording_from_cinac_file_segment as create_cinac_recording_from_cinac_file_segment,
)
from .rois import CellMap as CellMap
from .shipped import weights as weights
from .simulated import SimulatedMovieGenerator as SimulatedMovieGenerator
from .simulated import SimulatedRecording as SimulatedRecording
from .simulated import SimulationParams as SimulationParams
from .simulated import simulate_recording as simulate_recording
from .split_movies import CinacSplitedNpyMovie as CinacSplitedNpyMovie
from .split_movies import CinacSplitedTiffMovie as CinacSplitedTiffMovie
from .windows import load_data_for_cell_type_prediction as load_data_for_cell_type_prediction
from .windows import load_data_for_prediction as load_data_for_prediction
from .windows import window_starts as window_starts
