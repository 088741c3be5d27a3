"""Video files, folders of frames and arrays -> frames -> the clip that a model sees."""
