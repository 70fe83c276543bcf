"""Activity and types of cells, as scripts for DeepCINAC are written: cinac.py FOLDER CLASSIFIERS."""

import sys

import numpy as np
from deepcinac.cinac_movie import CinacTiffMovie
from deepcinac.cinac_predictor import CinacPredictor, fusion_cell_type_predictions
from deepcinac.cinac_structures import CinacRecording

folder, classifiers = sys.argv[1:]

contours = list(np.load(f"{folder}/contours.npy"))
cinac_recording = CinacRecording(identifier="p5_19_03_25_a001")
cinac_recording.set_movie(CinacTiffMovie(tiff_file_name=f"{folder}/movie.tif"))
cinac_recording.set_rois_2d_array(coord=contours, from_matlab=False)

model_files_dict = {(f"{classifiers}/activity.json", f"{classifiers}/activity.h5", "v1"): np.arange(2)}
cinac_predictor = CinacPredictor()
cinac_predictor.add_recording(
    cinac_recording=cinac_recording, removed_cells_mapping=None, model_files_dict=model_files_dict
)
predictions_dict = cinac_predictor.predict(
    results_path=folder,
    overlap_value=0.5,
    cell_type_classifier_mode=False,
    output_file_formats=["npy", "mat"],
    create_dir_for_results=False,
)
for (recording_id, classifier_id), predictions in predictions_dict.items():
    np.save(f"{folder}/raster_{recording_id}_{classifier_id}.npy", predictions >= 0.5)

types = CinacPredictor()
types.add_recording(
    cinac_recording, {(f"{classifiers}/cell_type.json", f"{classifiers}/cell_type.h5", "t1"): None}
)
predicted = types.predict(
    folder, cell_type_classifier_mode=True, n_segments_to_use_for_prediction=2, create_dir_for_results=False
)["p5_19_03_25_a001", "t1"]
fusion_cell_type_predictions(predicted, np.zeros_like(predicted), filename_to_save=f"{folder}/types")
