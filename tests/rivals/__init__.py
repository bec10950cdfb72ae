"""Side by side on one NVIDIA GPU: an artifact, plain torch, and the kernels that people would pick instead.

    python -m tests.rivals ARTIFACT --rows 4,16,64 --context 8192

Everything runs in one process on the artifact's own parameters and on the batches of `predecode bench`. What a rival
computes is checked before its time is shown; one that is missing or wrong is listed with the reason instead.
"""
