"""From Hugging Face's tensors to the parameters of one rank: which are fused, split and stacked, and how."""

import torch

from predecode.custom_kernels.formats import ElementFormat
from predecode.custom_kernels.layouts import ROW_MAJOR
from predecode.export.config import ModelConfig
from predecode.export.shard import Shard, shard_sizes
from predecode.export.weights.checkpoint_tensors import fused_experts, layer_prefix
from predecode.export.weights.parameters import (
    BlockScaledParameters,
    MatrixPart,
    Parameters,
    PlainParameter,
    RopeTableParameter,
)


class ParameterMapping:
    """Makes the `Parameters` of one rank; ``fused_layers`` are those whose experts the checkpoint fuses."""

    def __init__(self, config: ModelConfig, shard: Shard, element_format: ElementFormat, fused_layers: frozenset[int]):
        self._config = config
        self._shard = shard
        self._sizes = shard_sizes(config, shard)
        self._format = element_format
        self._fused_layers = fused_layers

    def rope_table(self, max_context: int) -> Parameters:
        """The table of cosines and sines, used by every layer."""
        return RopeTableParameter(self._config.rope_parameters, self._config.qk_rope_head_dim, max_context)

    def outer(self) -> list[Parameters]:
        """What surrounds the layers: embedding, final norm and this rank's rows of the output head."""
        config = self._config
        hidden, vocabulary = (config.hidden_size,), config.vocab_size
        return [
            self._plain("embedding.weight", "model.embed_tokens.weight", slice(0, vocabulary), hidden),
            self._vector("final_norm.weight", "model.norm.weight", config.hidden_size),
            self._plain("output.weight", "lm_head.weight", self._shard.part(vocabulary), hidden),
        ]

    def layer(self, layer: int) -> list[Parameters]:
        """Everything of one decoder layer."""
        config, ours, theirs = self._config, f"layers.{layer}.", layer_prefix(layer)
        norms = [
            self._vector(f"{ours}input_norm.weight", f"{theirs}input_layernorm.weight", config.hidden_size),
            self._vector(
                f"{ours}post_attention_norm.weight",
                f"{theirs}post_attention_layernorm.weight",
                config.hidden_size,
            ),
        ]
        attention = self._attention(f"{ours}attention.", f"{theirs}self_attn.")
        indexer = self._indexer(f"{ours}indexer.", f"{theirs}self_attn.indexer.") if config.has_indexer(layer) else []
        mlp = self._experts(layer) if config.is_sparse(layer) else self._dense(f"{ours}mlp.", f"{theirs}mlp.")
        return [*norms, *attention, *indexer, *mlp]

    def _attention(self, ours: str, theirs: str) -> list[Parameters]:
        config, part = self._config, self._shard.part
        hidden, heads = slice(0, config.hidden_size), config.num_attention_heads
        query, latent = slice(0, config.q_lora_rank), slice(0, config.kv_lora_rank)
        key_and_value = config.qk_nope_head_dim + config.v_head_dim
        return [
            self._linear(
                f"{ours}qkv_a",
                MatrixPart(f"{theirs}q_a_proj.weight", query, hidden),
                MatrixPart(f"{theirs}kv_a_proj_with_mqa.weight", slice(0, config.latent_dim), hidden),
            ),
            self._vector(f"{ours}query_norm.weight", f"{theirs}q_a_layernorm.weight", config.q_lora_rank),
            self._vector(f"{ours}latent_norm.weight", f"{theirs}kv_a_layernorm.weight", config.kv_lora_rank),
            self._linear(f"{ours}q_b", MatrixPart(f"{theirs}q_b_proj.weight", part(heads * config.qk_head_dim), query)),
            BlockScaledParameters(
                f"{ours}kv_b",
                ((MatrixPart(f"{theirs}kv_b_proj.weight", part(heads * key_and_value), latent),),),
                self._format,
                layout=ROW_MAJOR,
                shape=(self._sizes.heads, key_and_value, config.kv_lora_rank),
            ),
            self._linear(
                f"{ours}o_proj", MatrixPart(f"{theirs}o_proj.weight", hidden, part(heads * config.v_head_dim))
            ),
        ]

    def _indexer(self, ours: str, theirs: str) -> list[Parameters]:
        config = self._config
        dim, hidden = config.index_head_dim, slice(0, config.hidden_size)
        query_rows, query = slice(0, config.index_n_heads * dim), slice(0, config.q_lora_rank)
        return [
            self._linear(f"{ours}wq_b", MatrixPart(f"{theirs}wq_b.weight", query_rows, query)),
            self._linear(f"{ours}wk", MatrixPart(f"{theirs}wk.weight", slice(0, dim), hidden)),
            self._vector(f"{ours}k_norm.weight", f"{theirs}k_norm.weight", dim),
            self._vector(f"{ours}k_norm.bias", f"{theirs}k_norm.bias", dim),
            self._plain(
                f"{ours}weights_proj.weight",
                f"{theirs}weights_proj.weight",
                slice(0, config.index_n_heads),
                (config.hidden_size,),
            ),
        ]

    def _dense(self, ours: str, theirs: str) -> list[Parameters]:
        rows, hidden = self._shard.part(self._config.intermediate_size), slice(0, self._config.hidden_size)
        return [
            self._linear(f"{ours}gate_up", *self._gate_and_up(theirs, rows, hidden)),
            self._linear(f"{ours}down", MatrixPart(f"{theirs}down_proj.weight", hidden, rows)),
        ]

    def _experts(self, layer: int) -> list[Parameters]:
        """Router and experts; the shared experts follow the routed ones."""
        config, ours, theirs = self._config, f"layers.{layer}.mlp.", f"{layer_prefix(layer)}mlp."
        inner, hidden = config.moe_intermediate_size, slice(0, config.hidden_size)
        routed, rows = range(config.n_routed_experts), self._shard.part(inner)
        if layer in self._fused_layers:
            gate_up, down = fused_experts(layer, "gate_up_proj"), fused_experts(layer, "down_proj")
            up_rows = slice(inner + rows.start, inner + rows.stop)
            gate_ups = [
                (MatrixPart(gate_up, rows, hidden, expert), MatrixPart(gate_up, up_rows, hidden, expert))
                for expert in routed
            ]
            downs = [(MatrixPart(down, hidden, rows, expert),) for expert in routed]
        else:
            gate_ups = [self._gate_and_up(f"{theirs}experts.{expert}.", rows, hidden) for expert in routed]
            downs = [(MatrixPart(f"{theirs}experts.{expert}.down_proj.weight", hidden, rows),) for expert in routed]
        for shared in range(config.n_shared_experts):
            # The checkpoint stacks the shared experts' inner columns; each becomes an expert of its own.
            shared_rows = slice(shared * inner + rows.start, shared * inner + rows.stop)
            gate_ups.append(self._gate_and_up(f"{theirs}shared_experts.", shared_rows, hidden))
            downs.append((MatrixPart(f"{theirs}shared_experts.down_proj.weight", hidden, shared_rows),))
        count = config.n_routed_experts
        return [
            self._plain(f"{ours}router.weight", f"{theirs}gate.weight", slice(0, count), (config.hidden_size,)),
            PlainParameter(
                f"{ours}router.correction_bias",
                f"{theirs}gate.e_score_correction_bias",
                slice(0, count),
                (),
                torch.float32,
            ),
            BlockScaledParameters(f"{ours}experts.gate_up", tuple(gate_ups), self._format, experts=True),
            BlockScaledParameters(f"{ours}experts.down", tuple(downs), self._format, experts=True),
        ]

    def _gate_and_up(self, theirs: str, rows: slice, hidden: slice) -> tuple[MatrixPart, ...]:
        return tuple(MatrixPart(f"{theirs}{name}_proj.weight", rows, hidden) for name in ("gate", "up"))

    def _linear(self, name: str, *parts: MatrixPart) -> Parameters:
        return BlockScaledParameters(name, (parts,), self._format)

    def _vector(self, name: str, source_name: str, size: int) -> Parameters:
        return self._plain(name, source_name, slice(0, size), ())

    def _plain(self, name: str, source_name: str, rows: slice, row_shape: tuple[int, ...]) -> Parameters:
        return PlainParameter(name, source_name, rows, row_shape, self._format.activation_dtype)
