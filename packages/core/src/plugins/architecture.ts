/**
 * How a family's config and tensor names become a decoder: data, not code. `{i}` in a name is the
 * block's number.
 */

export interface Architecture {
  readonly kind: 'architecture'
  readonly name: string
  /** `model_type` values of config.json that it covers. */
  readonly modelTypes: readonly string[]
  readonly modules: {
    readonly embedding: string
    readonly positionEmbedding?: string
    readonly head: string
    readonly finalNorm: string
    readonly block: {
      readonly attentionNorm: string
      readonly query: string
      readonly key: string
      readonly value: string
      readonly queryNorm?: string
      readonly keyNorm?: string
      readonly attentionOutput: string
      readonly mlpNorm: string
      readonly gate?: string
      readonly up: string
      readonly down: string
    }
  }
  readonly norm: 'rms' | 'layer'
  readonly position: 'rope' | 'learned'
  readonly activation: 'silu' | 'gelu' | 'gelu_erf' | 'relu'
  /** Where config.json keeps what a decoder needs, when it is not under the usual key. */
  readonly keys?: Readonly<Partial<Record<ConfigKey, string>>>
}

export type ConfigKey =
  | 'hidden_size'
  | 'intermediate_size'
  | 'num_hidden_layers'
  | 'num_attention_heads'
  | 'num_key_value_heads'
  | 'head_dim'
  | 'max_position_embeddings'
  | 'rope_theta'
  | 'rms_norm_eps'
  | 'vocab_size'
  | 'tie_word_embeddings'
