"""A movie that counts how often it is read."""

from gpucalcium.movies.source import Source


class Counted(Source):
    """Frames of an array, which is not given away whole: it can be held only by reading it."""

    def __init__(self, movie):
        super().__init__(movie.shape, movie.dtype, "a movie that counts")
        self.movie, self.read_frames = movie, 0

    def _fill(self, wanted, out):
        self.read_frames += len(wanted)
        out[:] = self.movie[wanted.start : wanted.stop : wanted.step]

    def times(self):
        """How often the movie was read since this was asked last."""
        times, self.read_frames = self.read_frames / len(self.movie), 0
        return times
