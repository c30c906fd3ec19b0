import numpy as np
from emograph_mirror import Mirror

from pipeline import Harness, Region


def test_mirror_flips_pixels_and_boxes():
    frame = np.zeros((100, 200, 3), np.uint8)
    frame[:, :50] = 255
    with Harness(Mirror()) as harness:
        [out] = harness.push(frame, regions=[Region((0, 10, 50, 40))])
    assert out.frame[0, 199].all()
    assert not out.frame[0, 0].any()
    assert out.regions[0].box == (150, 10, 50, 40)
