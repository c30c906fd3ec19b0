"""The same work done with other people's software. Scripts that import nothing of emograph: they may run in an
environment of their own (`emograph bench NAME --python PATH`)."""

HOW_TO_GET_FER = (
    "fer: in an environment of its own (it wants TensorFlow), pip install fer 'opencv-contrib-python<5' 'moviepy<2' "
    "'setuptools<81', then --python THAT/bin/python"
)
