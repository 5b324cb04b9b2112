/**
 * Codebooks moved toward the layer's output with the codes held: Q is linear in the entries, so
 * tr((W − Q)·H·(W − Q)ᵀ) is quadratic in them, and conjugate gradients with its exact gradient
 * 2·(Q − W)·H, summed over the weights of each entry, find the least (GPTVQ, 2402.15319, section 4.3, descends on the
 * same loss).
 */

import type { ColumnRange, Kernels, Tensor, VectorRounding } from '../plugins/kernels.ts'

/** Columns with tables of their own, and their codes. */
export interface CodedPart {
  readonly codes: readonly Tensor[]
  readonly options: VectorRounding & ColumnRange
}

export interface UpdateInput {
  readonly kernels: Kernels
  /** [rows, columns] */
  readonly weight: Tensor
  readonly hessian: Tensor
  readonly parts: readonly CodedPart[]
  readonly iterations: number
  readonly signal?: AbortSignal
}

/** Changes the tables of all parts in place, together. The loss never grows but for rounding. */
export async function updateTables(input: UpdateInput): Promise<void> {
  const { kernels, weight, hessian, parts, iterations } = input
  const { rows, columns } = weight
  const owned: Tensor[] = []
  const own = (tensor: Tensor): Tensor => {
    owned.push(tensor)
    return tensor
  }
  try {
    const tables = parts.flatMap(({ options }) => options.tables.map(({ values }) => values))
    const like = (): Tensor[] => tables.map((t) => own(kernels.tensor(t.rows, t.columns)))
    const spread = own(kernels.tensor(rows, columns))
    const product = own(kernels.tensor(rows, columns))
    const apply = (out: readonly Tensor[], given: readonly Tensor[], affine: boolean): void => {
      decodeParts(kernels, spread, parts, given, affine)
      kernels.multiply(product, spread, hessian)
      scatterParts(kernels, out, product, parts)
    }
    // The Hessian's diagonal seen from an entry, as a preconditioner.
    const power = await diagonalOf(input, own, like())
    // b − A·x = scatter((W − Q)·H)
    const residual = like()
    decodeParts(kernels, spread, parts, tables, true)
    const rest = own(kernels.tensor(rows, columns))
    kernels.scale(rest, spread, {
      rows: own(kernels.upload(new Float32Array(rows).fill(-1), rows, 1)),
    })
    kernels.add(rest, weight)
    kernels.multiply(product, rest, hessian)
    scatterParts(kernels, residual, product, parts)
    let r = await readAll(kernels, residual)
    const x = await readAll(kernels, tables)
    const damped = (v: Float64Array[]): Float64Array[] =>
      v.map((part, i) => part.map((value, j) => (power[i][j] > 0 ? value / power[i][j] : 0)))
    let z = damped(r)
    let p = z.map((part) => part.slice())
    let rz = dot(r, z)
    const [direction, image] = [like(), like()]
    for (let iteration = 0; iteration < iterations && rz > 0; iteration++) {
      input.signal?.throwIfAborted()
      writeAll(kernels, direction, p)
      apply(image, direction, false)
      const ap = await readAll(kernels, image)
      const curvature = dot(p, ap)
      if (!(curvature > 0)) break
      const step = rz / curvature
      x.forEach((part, i) => {
        for (let j = 0; j < part.length; j++) part[j] += step * p[i][j]
      })
      r = r.map((part, i) => part.map((value, j) => value - step * ap[i][j]))
      z = damped(r)
      const next = dot(r, z)
      const turn = next / rz
      p = z.map((part, i) => part.map((value, j) => value + turn * p[i][j]))
      rz = next
    }
    writeAll(kernels, tables, x)
  } finally {
    kernels.free(...owned)
  }
}

/** out = the decoded parts with other values in their tables; without the biases where not `affine`. */
function decodeParts(
  kernels: Kernels,
  out: Tensor,
  parts: readonly CodedPart[],
  values: readonly Tensor[],
  affine: boolean,
): void {
  let at = 0
  for (const { codes, options } of parts) {
    const tables = options.tables.map((table) => ({ ...table, values: values[at++] }))
    const { columnBias } = options
    kernels.decodeVectors(out, codes, {
      ...options,
      ...{ tables, columnBias: affine ? columnBias : undefined },
    })
  }
}

function scatterParts(
  kernels: Kernels,
  out: readonly Tensor[],
  x: Tensor,
  parts: readonly CodedPart[],
): void {
  let at = 0
  for (const { codes, options } of parts) {
    const to = at + options.tables.length
    kernels.scatterVectors(out.slice(at, to), x, codes, options)
    at = to
  }
}

/** Σ over the weights of an entry of H_jj · scale². */
async function diagonalOf(
  { kernels, weight, hessian, parts }: UpdateInput,
  own: (tensor: Tensor) => Tensor,
  out: readonly Tensor[],
): Promise<Float64Array[]> {
  const { rows, columns } = weight
  const spread = own(kernels.tensor(rows, columns))
  const ones = parts.flatMap(({ options }) =>
    options.tables.map(({ values }, stage) => {
      const size = values.rows * values.columns
      const value = stage === 0 ? 1 : 0
      return own(kernels.upload(new Float32Array(size).fill(value), values.rows, values.columns))
    }),
  )
  decodeParts(kernels, spread, parts, ones, false)
  const diagonal = own(kernels.tensor(1, columns))
  kernels.diagonal(diagonal, hessian)
  kernels.scale(spread, spread, { columns: diagonal })
  scatterParts(kernels, out, spread, parts)
  return readAll(kernels, out)
}

const readAll = (kernels: Kernels, tensors: readonly Tensor[]): Promise<Float64Array[]> =>
  Promise.all(tensors.map(async (tensor) => Float64Array.from(await kernels.read(tensor))))

function writeAll(
  kernels: Kernels,
  tensors: readonly Tensor[],
  values: readonly Float64Array[],
): void {
  tensors.forEach((tensor, i) => {
    kernels.write(tensor, Float32Array.from(values[i]))
  })
}

function dot(a: readonly Float64Array[], b: readonly Float64Array[]): number {
  let sum = 0
  a.forEach((part, i) => {
    for (let j = 0; j < part.length; j++) sum += part[j] * b[i][j]
  })
  return sum
}
