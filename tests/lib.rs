//! Nothing here: the cases are the test binary `cases`, and the fuzz targets live in `fuzz`.
