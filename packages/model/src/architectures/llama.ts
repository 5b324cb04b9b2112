import type { Architecture } from '@lowbit/core'

/** Llama 1–3 and everything that copies it (SmolLM2, Mistral without its window, Yi, …). */
export const llama: Architecture = {
  kind: 'architecture',
  name: 'llama',
  modelTypes: ['llama', 'mistral'],
  modules: {
    embedding: 'model.embed_tokens',
    head: 'lm_head',
    finalNorm: 'model.norm',
    block: {
      attentionNorm: 'model.layers.{i}.input_layernorm',
      query: 'model.layers.{i}.self_attn.q_proj',
      key: 'model.layers.{i}.self_attn.k_proj',
      value: 'model.layers.{i}.self_attn.v_proj',
      attentionOutput: 'model.layers.{i}.self_attn.o_proj',
      mlpNorm: 'model.layers.{i}.post_attention_layernorm',
      gate: 'model.layers.{i}.mlp.gate_proj',
      up: 'model.layers.{i}.mlp.up_proj',
      down: 'model.layers.{i}.mlp.down_proj',
    },
  },
  norm: 'rms',
  position: 'rope',
  activation: 'silu',
}
