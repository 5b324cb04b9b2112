import type { AttentionShape, Kernels, Tensor } from './kernels.ts'

export interface CacheShape {
  readonly layers: number
  readonly keyValueHeads: number
  readonly headSize: number
  /** Tokens that it must hold at most. */
  readonly capacity: number
}

/** The keys and values of one running sequence. */
export interface Cache {
  /** Tokens stored in every layer. */
  readonly length: number
  readonly bytes: number
  /** Takes a layer's new keys and values ([n, keyValueHeads·headSize], keys already turned by RoPE) … */
  append(layer: number, keys: Tensor, values: Tensor): void
  /** … and attends over all stored ones; q's rows are the newest `q.rows` positions. */
  attend(layer: number, out: Tensor, q: Tensor, shape: Omit<AttentionShape, 'start'>): void
  /** Says that `tokens` positions are now stored in all layers. */
  advance(tokens: number): void
  /** Forgets everything past `length`. */
  truncate(length: number): void
  dispose(): void
}

/** Stores keys and values as they arrive: in full precision, or in few bits. */
export interface CacheScheme {
  readonly kind: 'cache'
  readonly name: string
  readonly options: Readonly<Record<string, unknown>>
  create(kernels: Kernels, shape: CacheShape): Cache
}
