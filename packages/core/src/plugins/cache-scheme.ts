import type { AttentionShape, Kernels, Tensor } from './kernels.ts'

export interface CacheShape {
  readonly layers: number
  readonly keyValueHeads: number
  readonly headSize: number
  /** Tokens that it must hold at most; memory is taken as they come. */
  readonly capacity: number
  /** Positions that the model can tell apart, where they are known. */
  readonly context?: number
  /** The angles by which RoPE turns keys at the first positions, [positions, headSize / 2] each. */
  readonly rope?: (positions: number) => { readonly cos: Float32Array; readonly sin: Float32Array }
}

/** How a cache's tokens are kept: whole numbers by name, `length` among them. */
export type CacheLayout = Readonly<Record<string, number>> & { readonly length: number }

/** The keys and values of one running sequence. */
export interface Cache {
  /** Tokens stored in every layer. */
  readonly length: number
  /** Memory that it takes now. */
  readonly bytes: number
  /** So many tokens run at once are what they are one at a time: until then, what is stored keeps its form. */
  readonly steady: number
  /** Takes a layer's new keys and values ([n, keyValueHeads·headSize], keys already turned by RoPE) … */
  append(layer: number, keys: Tensor, values: Tensor): void
  /** … and attends over all stored ones; q's rows are the newest `q.rows` positions. */
  attend(layer: number, out: Tensor, q: Tensor, shape: Omit<AttentionShape, 'start'>): void
  /** Says that `tokens` positions are now stored in all layers. */
  advance(tokens: number): void
  /** Forgets everything past `length`; all, where what stood before it is forgotten already. */
  truncate(length: number): void
  /** For a copy: how its tokens are kept, … */
  layout(): CacheLayout
  /** … the memory that they are in, views by name that are good until the cache changes, … */
  parts(): ReadonlyMap<string, Tensor>
  /** … and room for tokens kept so, whose `parts` are then written. Refuses a layout that is none of its own. */
  prepare(layout: CacheLayout): void
  dispose(): void
}

/** Stores keys and values as they arrive: in full precision, or in few bits. */
export interface CacheScheme {
  readonly kind: 'cache'
  readonly name: string
  readonly options: Readonly<Record<string, unknown>>
  create(kernels: Kernels, shape: CacheShape): Cache
  /**
   * The scheme that has learnt what it must know of a model's keys and values, layer by layer, before it can create.
   * Absent where nothing is to be learnt.
   */
  fit?(
    kernels: Kernels,
    shape: Omit<CacheShape, 'capacity'>,
    samples: CacheSamples,
  ): Promise<CacheScheme>
  /** For a copy: what it has learnt, numbers by name, … */
  readonly learnt?: ReadonlyMap<string, Float32Array>
  /** … and the scheme that knows it already. Of another model it is refused when a cache is created. */
  recall?(learnt: ReadonlyMap<string, Float32Array>): Promise<CacheScheme>
  /** What so many tokens come to that were run one at a time. */
  size(shape: Omit<CacheShape, 'capacity'>, length: number): CacheSize
}

/** Keys or values of a text from its first token on, rows of `width` numbers. */
export interface CacheSample {
  readonly numbers: Float32Array
  /** What a squared error counts in each: its Fisher information, the squared gradient of a loss. All alike by default. */
  readonly weights?: Float32Array
  readonly width: number
}

/** What a layer has kept of some texts; asked for one layer after the other, once each. */
export type CacheSamples = (
  layer: number,
) => Promise<{ readonly keys: readonly CacheSample[]; readonly values: readonly CacheSample[] }>

export interface CacheSize {
  /** Of the tokens alone, without room for more. */
  readonly bytes: number
  /** Tokens that are attended over. */
  readonly tokens: number
  /** Keys and values that are in codes, in numbers: what attention expands. */
  readonly codedNumbers: number
}

/** Tokens of a page. */
const PAGE = 256

/**
 * Tokens that storage has room for once it holds `needed`, `most` at most: whole pages, and a quarter more than before,
 * so that moving to larger memory costs each token a few copies at most.
 */
export function roomFor(before: number, needed: number, most: number): number {
  if (needed <= before) return before
  return Math.min(most, Math.ceil(Math.max(needed, before * 1.25) / PAGE) * PAGE)
}

/** A tensor of so many rows with the first `held` of another, which is freed. */
export function resized(kernels: Kernels, tensor: Tensor, held: number, rows: number): Tensor {
  const larger = kernels.tensor(rows, tensor.columns, tensor.type)
  if (held > 0) kernels.copy(kernels.rows(larger, 0, held), kernels.rows(tensor, 0, held))
  kernels.free(tensor)
  return larger
}
