"""Side by side on one NVIDIA GPU: an artifact, plain torch, and the kernels that people would pick instead.

    python -m tests.rivals ARTIFACT --rows 4,16,64 --context 8192

Everything runs on the artifact's own parameters and on the batches of `predecode bench`, layers in one process and
other projects' kernels in processes of their own. What a rival computes is checked before its time is shown; one that
is missing, wrong or faulty is listed with the reason instead.
"""
