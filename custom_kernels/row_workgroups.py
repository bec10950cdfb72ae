"""How the kernels that work along rows divide a row: eight columns a thread, 256 threads a workgroup."""

from predecode.custom_kernels.launch import Launch, float_bits
from predecode.custom_kernels.op import Call, LaunchRule
from predecode.custom_kernels.targets import Target

THREADS = 256
COLUMNS_PER_WORKGROUP = THREADS * 8


def chunks_of(columns: int) -> int:
    """How many times a workgroup's columns cover a row of ``columns``."""
    return -(-columns // COLUMNS_PER_WORKGROUP)


def row_parts(target: Target, rows: int, columns: int) -> int:
    """Workgroups that share the stores of a row: as many as a row has chunks, on half of the compute units.

    The others are left to a product that loads its weights meanwhile.
    """
    return max(1, min(chunks_of(columns), target.compute_units // (2 * rows)))


def norm_launch(name: str, *operands: str) -> LaunchRule:
    """The launch rule of a norm called ``name`` that quantises: one workgroup per row and part of its argument ``x``.

    The workgroups of a row all read it whole: sums of squares need no exchange, and each stores little.
    """

    def launch(target: Target, call: Call) -> Launch | None:
        if call["element_format"] != target.element_format.name:
            return None
        rows, columns = call["x"].shape
        epsilon = float_bits(call["epsilon"])
        if not target.has_hip_kernels:
            defines = (("COLUMNS", columns),)
            return Launch(f"{name}.cpp", name, operands, (rows, epsilon), (rows, 1, 1), defines=defines)
        parts = row_parts(target, rows, columns)
        return Launch(
            source=f"{name}.hip",
            symbol=name,
            operands=operands,
            constants=(rows, epsilon),
            workgroups=(rows, parts, 1),
            workgroup_size=(THREADS, 1, 1),
            defines=(("COLUMNS", columns), ("PARTS", parts)),
        )

    return launch
