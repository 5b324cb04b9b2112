/**
 * What a device must be able to do. A `Kernels` object owns its memory: tensors are handles,
 * operations are queued in the order of the calls, and only reading back is asynchronous, so that one
 * forward pass can be one submission on a GPU. An operation may write to a tensor that it also
 * reads only where its comment says so.
 *
 * Every operation is deterministic: the same inputs give the same bits whatever the number of
 * threads. A `strict` set of kernels gives the same bits on every machine as well.
 *
 * Shapes are [rows, columns], row-major, f32 unless said otherwise. Operations throw a LowbitError
 * at once when shapes don't fit.
 */

import type { Matrix, Rotation, ScalarGrid } from '../matrix/types.ts'
import type { CacheKernels } from './cache-kernels.ts'
import type { Activation, GradientKernels } from './gradients.ts'
import type { TrainingKernels } from './training.ts'

/** `u8` and `u16` hold codes, `u32` words into which several are packed. */
export type TensorType = 'f32' | 'u8' | 'u16' | 'u32'

/** What a tensor's numbers are in JavaScript. */
export type TensorValues = Float32Array | Uint8Array | Uint16Array | Uint32Array

/** A tensor in the memory of one `Kernels`. */
export interface Tensor {
  readonly rows: number
  readonly columns: number
  readonly type: TensorType
}

/** A matrix repacked for one device. */
export interface Weight {
  readonly rows: number
  readonly columns: number
  /** Memory that it takes on the device. */
  readonly bytes: number
  /** Which variant runs it and why, for people: "int4 × int8, groups of 128". */
  readonly variant: string
}

export interface LoadOptions {
  /**
   * What the multiply does with the other side. `f32` leaves it alone. `int8` allows the kernels to
   * round it to 8 bits or more in short blocks where that is faster, `f16` to multiply in f16, `bf16` in bf16 where the
   * weight is dense, `fp8` in E4M3 where the weight is. Default `f32`.
   */
  readonly activations?: 'f32' | 'f16' | 'bf16' | 'int8' | 'fp8'
}

/**
 * How scalars are rounded: to the nearest `scale · (grid value − zero)`. The blocks of a lookup grid with several
 * tables are rectangles and count over the whole weight, beside those of the scales.
 */
export interface Rounding {
  readonly grid: ScalarGrid
  /** Columns that share a scale; a row's last block may be ragged. */
  readonly blockColumns: number
  /** Rows that share a scale. */
  readonly blockRows: number
}

export interface FitOptions extends Rounding {
  /** A zero point per block, an integer in the range of the codes. Integer grids only. */
  readonly asymmetric: boolean
  /** Weight of each column's squared error: [1, columns] (diag H). All alike by default. */
  readonly importance?: Tensor
  /**
   * How many factors 1, 1 − step, 1 − 2·step, … of the range are tried for the smallest weighted
   * squared error; 1 takes the range as it is.
   */
  readonly search: { readonly candidates: number; readonly step: number }
  /** What scales are rounded to before their error is measured. e8m0 rounds as OCP MX defines. */
  readonly scaleType: 'f32' | 'f16' | 'bf16' | 'f8_e8m0'
}

/** Where the error of a rounded column goes. */
export interface FeedbackOptions extends Rounding {
  /** Quantizes the columns [from, to) of `weight` in this order … */
  readonly from: number
  readonly to: number
  /**
   * … with the scale in column `blockOf[column]` of `scale`, which then may have any number of columns
   * (default: column / blockColumns).
   */
  readonly blockOf?: Uint32Array
  /**
   * The same for the tables of a lookup grid: which block of columns has each column's table (default:
   * column / grid.blocks.columns).
   */
  readonly tableOf?: Uint32Array
}

/** Which weights share a table, and what its values are multiplied by. */
export interface TableBlocks {
  /** Rows and columns that share a table; the last blocks may be ragged. */
  readonly blockRows: number
  readonly blockColumns: number
  /**
   * [rows, 1]: a weight is rowScale · (value of the table), 1 by default. Tables are fitted to w / rowScale, with
   * errors that count as those of the weight itself. No zeros.
   */
  readonly rowScale?: Tensor
}

/** Tables of values for blocks of a weight. */
export interface TableFitOptions extends TableBlocks {
  /**
   * `kmeans`: the values with the least Σ importance · (w − nearest value)², found exactly. Weights that agree in
   * sign, exponent and the first 10 bits of their mantissa stay in one cluster, so the optimum is exact for f16 and
   * bf16; where a block has more than 65,536 such groups, in the first 7 bits.
   * `uniform`: evenly spaced from the smallest weight to the largest.
   */
  readonly method: 'kmeans' | 'uniform'
  /** What each squared error counts: [1, columns] or [rows, columns]. All alike by default, or where all are zero. */
  readonly importance?: Tensor
}

/** One sweep of coordinate descent over codes that a first pass has found. */
export interface DescendOptions extends Rounding {
  /** λ, added to the Hessian's diagonal. */
  readonly damping: number
}

export interface ScaleFactors {
  /** [rows, 1] */
  readonly rows?: Tensor
  /** [1, columns] each */
  readonly columns?: Tensor
  readonly bias?: Tensor
}

/** A table of vectors for each `tableRows` rows of a weight: [tables · entries, length]. */
export interface VectorTable {
  readonly values: Tensor
  /** Vectors of one table: 1 … 65,536. */
  readonly entries: number
}

/**
 * Vectors of weights that one code stands for. A weight at (row, column) is
 * rowScale · (Σ tables, the entry of its code) · columnScale + columnBias.
 */
export interface VectorRounding {
  /** Weights of a vector, 1 … 16: consecutive rows of one column (`out`) or columns of one row (`in`). */
  readonly length: number
  readonly along: 'in' | 'out'
  /** Searched one after the other, each on what the ones before it left (residual quantization). */
  readonly tables: readonly VectorTable[]
  /** Rows that share a table; all by default. With `out`, all is the only choice. */
  readonly tableRows?: number
  /** [rows, ⌈columns / scaleColumns⌉]; with `in`, scaleColumns is a multiple of `length`. */
  readonly rowScale?: Tensor
  /** Columns of a block of rowScale, counted from column 0 of the weight; all by default. */
  readonly scaleColumns?: number
  /** [1, columns] each; with `out` only. */
  readonly columnScale?: Tensor
  readonly columnBias?: Tensor
}

export interface ClusterOptions {
  /** Rows of x that share a table; the last group may be shorter. */
  readonly groupRows: number
  readonly entries: number
  /** Weight of each row's squared distance, [n, 1]. */
  readonly weights?: Tensor
  readonly iterations: number
  /**
   * `mahalanobis`: rows evenly spaced in the order of their Mahalanobis distance from the group's mean (GPTVQ,
   * 2402.15319, section 4.1); `kmeans++`: drawn by their distance from those before (`seed`).
   */
  readonly seeding: 'mahalanobis' | 'kmeans++'
  readonly seed?: number
}

/** The columns [from, to) of a weight; all by default. */
export interface ColumnRange {
  readonly from?: number
  readonly to?: number
}

export interface VectorDescendOptions extends VectorRounding, ColumnRange {
  /** λ, added to the Hessian's diagonal. */
  readonly damping: number
  /**
   * For each table the codes that may take the place of each of its entries, u16
   * [tables · entries, candidates] (`neighbours`): a search near the code at hand.
   */
  readonly neighbours: readonly Tensor[]
}

export interface AttentionShape {
  readonly heads: number
  readonly keyValueHeads: number
  readonly headSize: number
  /** Usually 1/√headSize. */
  readonly scale: number
  /** Query row i stands at position `start + i` and sees the key rows 0 … start + i. */
  readonly start: number
}

export interface SampleOptions {
  /** 0 takes the largest logit. */
  readonly temperature: number
  /** Only the k likeliest; 0 means all. */
  readonly topK: number
  readonly topP: number
  /** Uniform in [0, 1). */
  readonly random: number
}

export interface Kernels extends CacheKernels, GradientKernels, TrainingKernels {
  /** `reference`, `cpu`, `webgpu`, `cuda`. */
  readonly name: string
  /** The variant in words: "strict SIMD, 2 threads". */
  readonly variant: string
  readonly strict: boolean

  // ---- memory
  /** A new tensor of zeros. */
  tensor(rows: number, columns: number, type?: TensorType): Tensor
  upload(values: TensorValues, rows: number, columns: number): Tensor
  /** Overwrites whole rows from `row` on. */
  write(tensor: Tensor, values: TensorValues, row?: number): void
  /** Rows [from, to) as a tensor over the same memory. It needs no freeing. */
  rows(tensor: Tensor, from: number, to: number): Tensor
  read(tensor: Tensor): Promise<Float32Array>
  /** A tensor of u8 or u16. */
  readCodes(tensor: Tensor): Promise<Uint8Array | Uint16Array>
  /** A tensor of u32. */
  readWords(tensor: Tensor): Promise<Uint32Array>
  /** out = x, of the same shape and type. */
  copy(out: Tensor, x: Tensor): void
  free(...tensors: Tensor[]): void
  /** Bytes held by tensors and weights now. */
  readonly bytes: number

  // ---- matrices
  load(matrix: Matrix, options?: LoadOptions): Weight
  unload(weight: Weight): void
  /** out[t, n] = Σ_k x[t, k] · W[n, k]; with `accumulate` added to what out holds. */
  matmul(out: Tensor, x: Tensor, weight: Weight, options?: { accumulate?: boolean }): void
  /** Rows of the dense matrix: out[i] = W[rows[i]] (an embedding), all rows by default. */
  gather(out: Tensor, weight: Weight, rows?: Uint32Array): void

  // ---- linear algebra, for calibration
  /** out[t, n] = Σ_k a[t, k] · b[n, k], both f32 tensors. */
  multiply(out: Tensor, a: Tensor, b: Tensor): void
  /** H += factor · xᵀx, x [tokens, n], H [n, n], both triangles. */
  gram(hessian: Tensor, x: Tensor, factor: number): void
  /** out += factor · aᵀb, a [tokens, m], b [tokens, n], out [m, n]. */
  crossGram(out: Tensor, a: Tensor, b: Tensor, factor: number): void
  /**
   * The upper triangular U with (P·H·Pᵀ + damping·1)⁻¹ = UᵀU, where P takes row order[i] to i; zeros
   * below the diagonal. False where the damped matrix is not positive definite in f32.
   */
  factorInverse(
    out: Tensor,
    hessian: Tensor,
    damping: number,
    order?: Uint32Array,
  ): Promise<boolean>
  /** The diagonal as [1, n]. */
  diagonal(out: Tensor, matrix: Tensor): void
  /** out[r, i] = x[r, order[i]]; out may have fewer columns than x. */
  permuteColumns(out: Tensor, x: Tensor, order: Uint32Array): void
  /** out [4, columns]: mean, mean of squares, least and largest of each column of x; sums in f64. */
  columnMoments(out: Tensor, x: Tensor): void
  /** out[r, c] = (x[r, c] − bias[c]) · rows[r] · columns[c]; out may be x. Absent factors are 1. */
  scale(out: Tensor, x: Tensor, factors: ScaleFactors): void
  /** Turns each row of x in place: x → R·x of `Rotation`. */
  rotate(x: Tensor, rotation: Rotation): void
  /** x ∘= y, element by element. */
  times(x: Tensor, y: Tensor): void
  /** Σ over everything of (a−b)·H·(a−b)ᵀ's diagonal; without H the squared distance. In f64 where possible. */
  distance(a: Tensor, b: Tensor | undefined, hessian?: Tensor): Promise<number>

  // ---- quantizing
  /** Finds scale [⌈rows/blockRows⌉, ⌈columns/blockColumns⌉] and zero (same shape, given if asymmetric). */
  fit(scale: Tensor, zero: Tensor | undefined, weight: Tensor, options: FitOptions): void
  /**
   * Finds a table for each block: tables [blocks, entries] (at most 256), blocks counted row by row, values
   * ascending. Where a block has fewer different values than entries, its largest is repeated.
   */
  fitTables(tables: Tensor, weight: Tensor, options: TableFitOptions): void
  /** out = rowScale · tables[block, code], for codes (u8) of tables [blocks, entries]; entries at most 256. */
  decodeCodes(out: Tensor, codes: Tensor, tables: Tensor, blocks: TableBlocks): void
  /** sums[block, code] = Σ rowScale · x over the weights of the block with that code: decodeCodes transposed. */
  sumByCode(sums: Tensor, x: Tensor, codes: Tensor, blocks: TableBlocks): void
  /** Codes (u8, shape of weight) of the nearest values; `decoded`, if given, takes the values (may be `weight`). */
  round(
    codes: Tensor,
    decoded: Tensor | undefined,
    weight: Tensor,
    scale: Tensor,
    zero: Tensor | undefined,
    rounding: Rounding,
  ): void
  /**
   * The feedback pass (GPTQ): for each column j of [from, to) in turn: round, write the code, and with
   * e = (w_j − q_j) / U_jj subtract e · U_{j,k} from every later column k of `weight`, to the end of the
   * row. Afterwards columns [from, to) of `weight` hold the quantized values. Equal to the
   * column-by-column algorithm up to rounding, lazily in blocks.
   */
  feedback(
    codes: Tensor,
    weight: Tensor,
    factor: Tensor,
    scale: Tensor,
    zero: Tensor | undefined,
    options: FeedbackOptions,
  ): void

  /**
   * One sweep of coordinate descent: each code in turn, in the order of columns, becomes the one that
   * makes (w − q)(H + λ1)(w − q)ᵀ of its row least while all others are held. `codes` and `decoded`
   * (their values) are changed in place; the sum over each row never grows but for rounding.
   */
  descend(
    codes: Tensor,
    decoded: Tensor,
    weight: Tensor,
    hessian: Tensor,
    scale: Tensor,
    zero: Tensor | undefined,
    options: DescendOptions,
  ): void

  // ---- vectors
  /** out = xᵀ; out may have more columns than x has rows, which then are zeros. */
  transpose(out: Tensor, x: Tensor): void
  /**
   * The entry of `table` [entries, d] nearest to each row of x [n, d], by squared distance: codes u16
   * [n, 1]; of equal ones the first. d is 16 at most. `distances` [n, 1] takes the squared distances.
   */
  nearest(codes: Tensor, x: Tensor, table: Tensor, distances?: Tensor): void
  /**
   * The sums of k-means: sums [entries, d + 1] = Σ over the rows i of x [n, d] with codes[i] = entry of
   * weights[i] · (x_i, 1). Weights are [n, 1], 1 by default. In f64 where possible.
   */
  clusterSums(sums: Tensor, x: Tensor, codes: Tensor, weights?: Tensor): void
  /** k-means of each group of rows of x [n, d] by itself: tables [groups · entries, d]. */
  cluster(tables: Tensor, x: Tensor, options: ClusterOptions): void
  /** For each entry of `table` the `candidates` nearest ones, itself first: u16 [entries, candidates]. */
  neighbours(out: Tensor, table: Tensor): void
  /**
   * The feedback pass over vectors (VPTQ with `out`, GPTVQ with `in`). `out`: each column in turn takes the
   * nearest entries; `in`: each `length` columns do, by the distance
   * (w − q)·[(U_PP)ᵀU_PP]⁻¹·(w − q)ᵀ of the columns P at hand. The error is fed into all later columns
   * of `weight` as in `feedback`. Codes, one tensor for each table, are u16: [⌈rows / length⌉, to − from]
   * with `out`, [rows, ⌈(to − from) / length⌉] with `in`. Afterwards columns [from, to) of `weight` hold
   * the quantized values. Rows and columns past the last count as zeros.
   */
  feedbackVectors(
    codes: readonly Tensor[],
    weight: Tensor,
    factor: Tensor,
    options: VectorRounding & ColumnRange,
  ): void
  /** The values of codes as `feedbackVectors` leaves them: columns [from, to) of out. */
  decodeVectors(out: Tensor, codes: readonly Tensor[], options: VectorRounding & ColumnRange): void
  /**
   * The adjoint of `decodeVectors`, for gradients of tables: sums, one for each table and of its shape, take for
   * each entry the sum of x · rowScale · columnScale over the weights that it stands for.
   */
  scatterVectors(
    sums: readonly Tensor[],
    x: Tensor,
    codes: readonly Tensor[],
    options: VectorRounding & ColumnRange,
  ): void
  /**
   * One sweep of coordinate descent over the vectors of columns [from, to): as `descend`, with candidates
   * from `neighbours`. Of several tables one is changed at a time. `out` only.
   */
  descendVectors(
    codes: readonly Tensor[],
    decoded: Tensor,
    weight: Tensor,
    hessian: Tensor,
    options: VectorDescendOptions,
  ): void

  // ---- a decoder's small operations
  /** out = x / √(mean(x²) + ε) · gain, gain [1, columns]. */
  rmsNorm(out: Tensor, x: Tensor, gain: Tensor, epsilon: number): void
  layerNorm(out: Tensor, x: Tensor, gain: Tensor, bias: Tensor | undefined, epsilon: number): void
  /** x += y; a y of one row is added to every row. */
  add(x: Tensor, y: Tensor): void
  /** Rotates pairs (i, i + headSize/2) of every head in place; row t turns by cos/sin row start + t ([positions, headSize/2]). */
  rope(x: Tensor, cos: Tensor, sin: Tensor, headSize: number, start: number): void
  /** out = act(gate) · up, or act(gate) without up; out may be gate. `gelu` is the tanh form. */
  activate(out: Tensor, gate: Tensor, up: Tensor | undefined, kind: Activation): void
  /** Causal attention: q [n, heads·size], k and v [≥ start + n, keyValueHeads·size]. */
  attention(out: Tensor, q: Tensor, k: Tensor, v: Tensor, shape: AttentionShape): void
  /** In place, row by row. */
  softmax(x: Tensor): void
  /** out [n, 1]: −log softmax(logits)[target], in nats. */
  crossEntropy(out: Tensor, logits: Tensor, targets: Uint32Array): void
  /** out [n, 1]: KL(reference ‖ logits) of the two softmaxes, in nats. */
  divergence(out: Tensor, reference: Tensor, logits: Tensor): void
  /** One token from one row of logits. */
  sample(logits: Tensor, options: SampleOptions): Promise<number>

  /** Stops threads, frees memory; the object is of no use afterwards. */
  dispose(): void
}

/** Groups of operations, for those who implement them. */
export type TensorOperations = Pick<
  Kernels,
  'tensor' | 'upload' | 'write' | 'rows' | 'read' | 'readCodes' | 'readWords' | 'copy' | 'free'
>
export type AlgebraOperations = Pick<
  Kernels,
  | 'multiply'
  | 'multiplyTransposed'
  | 'gram'
  | 'crossGram'
  | 'factorInverse'
  | 'diagonal'
  | 'permuteColumns'
  | 'columnMoments'
  | 'scale'
  | 'rotate'
  | 'times'
  | 'distance'
  | 'transpose'
>
