# ruff: noqa: PTH118, RUF059 - as users write scripts
"""A script as users have it: it imports caiman and knows nothing of this library.

two_photon.py MOVIE FOLDER
"""

import os
import sys

import caiman as cm
import numpy as np
from caiman.motion_correction import MotionCorrect
from caiman.source_extraction.cnmf import cnmf, params


def main():
    fnames, folder = [sys.argv[1]], sys.argv[2]
    opts = params.CNMFParams(
        params_dict={
            "fnames": fnames,
            "fr": 20,
            "decay_time": 0.6,
            "max_shifts": (6, 6),
            "strides": (48, 48),
            "overlaps": (24, 24),
            "pw_rigid": False,
            "p": 1,
            "nb": 2,
            "rf": None,
            "only_init": False,
            "K": 12,
            "gSig": [4, 4],
            "ssub": 1,
            "tsub": 1,
            "merge_thr": 0.85,
            "min_SNR": 2.5,
            "rval_thr": 0.85,
            "use_cnn": False,
        }
    )
    c, dview, n_processes = cm.cluster.setup_cluster(
        backend="multiprocessing", n_processes=None, single_thread=False
    )

    original = cm.load_movie_chain(fnames)
    mc = MotionCorrect(fnames, dview=dview, **opts.get_group("motion"))
    mc.motion_correct(save_movie=True)
    border = 0 if mc.border_nan == "copy" else mc.border_to_0
    name = os.path.join(folder, "memmap_")
    fname_new = cm.save_memmap(mc.mmap_file, base_name=name, order="C", border_to_0=border, dview=dview)

    Yr, dims, T = cm.load_memmap(fname_new)
    images = np.reshape(Yr.T, [T, *dims], order="F")
    assert images.shape == original.shape
    cnm = cnmf.CNMF(n_processes, params=opts, dview=dview)
    cnm = cnm.fit(images)
    Cn = cm.local_correlations(images.transpose(1, 2, 0))
    Cn[np.isnan(Cn)] = 0

    cnm2 = cnm.refit(images, dview=dview)
    cnm2.estimates.evaluate_components(images, cnm2.params, dview=dview)
    cnm2.estimates.select_components(use_object=True)
    cnm2.estimates.detrend_df_f(quantileMin=8, frames_window=250)
    cnm2.estimates.Cn = Cn
    cnm2.save(os.path.join(folder, "results.hdf5"))
    cm.stop_server(dview=dview)


if __name__ == "__main__":
    main()
