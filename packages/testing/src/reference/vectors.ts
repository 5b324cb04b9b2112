/** Vectors of weights, one after the other. */

import {
  type ColumnRange,
  type Kernels,
  LowbitError,
  seededRandom,
  type Tensor,
  type VectorRounding,
} from '@lowbit/core'
import { checkShape, type Memory } from './memory.ts'

type Operations = Pick<
  Kernels,
  | 'transpose'
  | 'nearest'
  | 'clusterSums'
  | 'neighbours'
  | 'feedbackVectors'
  | 'decodeVectors'
  | 'scatterVectors'
  | 'cluster'
  | 'descendVectors'
>

export function vectorOperations(memory: Memory): Operations {
  const { floats } = memory
  const integers = (tensor: Tensor): Uint16Array => {
    const values = memory.codes(tensor)
    if (values instanceof Uint16Array) return values
    throw new LowbitError('bad-type', 'codes of vectors are u16')
  }

  /** Where the weights and codes of a pass lie, with everything checked. */
  function prepare(
    codes: readonly Tensor[],
    weight: Tensor,
    options: VectorRounding & ColumnRange,
  ) {
    const { rows, columns } = weight
    const { length, along, tables, from = 0, to = columns } = options
    const { tableRows = rows, scaleColumns = columns } = options
    if (!Number.isInteger(length) || length < 1 || length > 16) {
      throw new LowbitError('bad-shape', `vectors of ${length} weights`)
    }
    if (!(Number.isInteger(from) && from >= 0 && from < to && to <= columns)) {
      throw new LowbitError('bad-shape', `columns ${from} to ${to} of ${columns}`)
    }
    const out = along === 'out'
    if (out && tableRows < rows) throw new LowbitError('bad-shape', 'one table for all rows')
    if (!out && (options.columnScale || options.columnBias)) {
      throw new LowbitError('bad-shape', 'no scales of columns along the columns')
    }
    if (!out && scaleColumns < columns && scaleColumns % length !== 0) {
      throw new LowbitError('bad-shape', 'a scale changes inside a vector')
    }
    if (tables.length === 0 || codes.length !== tables.length) {
      throw new LowbitError('bad-shape', `${codes.length} codes for ${tables.length} tables`)
    }
    const across = Math.ceil(columns / scaleColumns)
    const vectorRows = out ? Math.ceil(rows / length) : rows
    const vectorColumns = out ? to - from : Math.ceil((to - from) / length)
    tables.forEach(({ values, entries }, i) => {
      checkShape('a table', values, Math.ceil(rows / tableRows) * entries, length)
      checkShape('codes', codes[i], vectorRows, vectorColumns)
    })
    const { rowScale, columnScale, columnBias } = options
    if (rowScale) checkShape('rowScale', rowScale, rows, across)
    if (columnScale) checkShape('columnScale', columnScale, 1, columns)
    if (columnBias) checkShape('columnBias', columnBias, 1, columns)
    const [r, s, b] = [rowScale, columnScale, columnBias].map((x) => x && floats(x))
    const scaleOf = (row: number, column: number): number =>
      (r ? r[row * across + Math.floor(column / scaleColumns)] : 1) * (s ? s[column] : 1)
    const biasOf = (column: number): number => (b ? b[column] : 0)
    const entry = (stage: number, row: number, code: number): ArrayLike<number> => {
      const { values, entries } = tables[stage]
      const at = (Math.floor(row / tableRows) * entries + code) * length
      return floats(values).subarray(at, at + length)
    }
    const codeAt = (row: number, column: number): number =>
      out
        ? Math.floor(row / length) * vectorColumns + column - from
        : row * vectorColumns + Math.floor((column - from) / length)
    return { from, to, scaleOf, biasOf, entry, codeAt }
  }

  return {
    transpose(out, x) {
      checkShape('out', out, x.columns, Math.max(out.columns, x.rows))
      const [y, values] = [floats(out), floats(x)]
      y.fill(0)
      for (let row = 0; row < x.rows; row++) {
        for (let column = 0; column < x.columns; column++) {
          y[column * out.columns + row] = values[row * x.columns + column]
        }
      }
    },

    nearest(codes, x, table, distances) {
      checkShape('codes', codes, x.rows, 1)
      if (distances) checkShape('distances', distances, x.rows, 1)
      checkShape('the table', table, table.rows, x.columns)
      const d = x.columns
      if (d < 1 || d > 16 || table.rows < 1 || table.rows > 65536) {
        throw new LowbitError('bad-shape', `a table of ${table.rows} vectors of ${d}`)
      }
      const [values, points] = [floats(table), floats(x)]
      for (let i = 0; i < x.rows; i++) {
        const at = nearestOf(points.subarray(i * d, (i + 1) * d), values, table.rows, d)
        integers(codes)[i] = at
        if (distances) floats(distances)[i] = between(points, i, values, at, d)
      }
    },

    clusterSums(sums, x, codes, weights) {
      const { rows: n, columns: d } = x
      checkShape('sums', sums, sums.rows, d + 1)
      checkShape('codes', codes, n, 1)
      if (weights) checkShape('weights', weights, n, 1)
      const total = new Float64Array(sums.rows * (d + 1))
      for (let i = 0; i < n; i++) {
        const code = integers(codes)[i]
        if (code >= sums.rows) throw new LowbitError('bad-index', `code ${code} of ${sums.rows}`)
        const weight = weights ? floats(weights)[i] : 1
        for (let e = 0; e < d; e++) total[code * (d + 1) + e] += weight * floats(x)[i * d + e]
        total[code * (d + 1) + d] += weight
      }
      floats(sums).set(total)
    },

    neighbours(out, table) {
      const { rows: entries, columns: d } = table
      checkShape('out', out, entries, out.columns)
      if (out.columns < 1 || out.columns > entries) {
        throw new LowbitError('bad-shape', `${out.columns} neighbours of ${entries}`)
      }
      const values = floats(table)
      for (let i = 0; i < entries; i++) {
        const far = Array.from({ length: entries }, (_, j) =>
          i === j ? -1 : between(values, i, values, j, d),
        )
        const order = Array.from(far.keys()).sort((a, b) => far[a] - far[b] || a - b)
        integers(out).set(order.slice(0, out.columns), i * out.columns)
      }
    },

    feedbackVectors(codes, weight, factor, options) {
      const { rows, columns } = weight
      const { length, along, tables } = options
      checkShape('factor', factor, columns, columns)
      const { from, to, scaleOf, biasOf, entry, codeAt } = prepare(codes, weight, options)
      const [w, u] = [floats(weight), floats(factor)]
      const feed = (row: number, column: number, error: number, after: number): void => {
        for (let k = after; k < columns; k++)
          w[row * columns + k] -= error * u[column * columns + k]
      }
      if (along === 'out') {
        for (let j = from; j < to; j++) {
          for (let row = 0; row < rows; row += length) {
            const high = Math.min(length, rows - row)
            let rest = Array.from({ length }, (_, e) => {
              if (e >= high) return 0
              return quotient(w[(row + e) * columns + j] - biasOf(j), scaleOf(row + e, j))
            })
            const sum = new Array<number>(length).fill(0)
            tables.forEach(({ values, entries }, stage) => {
              const code = nearestOf(rest, floats(values), entries, length)
              integers(codes[stage])[codeAt(row, j)] = code
              const c = entry(stage, row, code)
              rest = rest.map((x, e) => x - c[e])
              for (let e = 0; e < length; e++) sum[e] += c[e]
            })
            for (let e = 0; e < high; e++) {
              const at = (row + e) * columns + j
              const q = sum[e] * scaleOf(row + e, j) + biasOf(j)
              const error = (w[at] - q) / u[j * columns + j]
              w[at] = q
              feed(row + e, j, error, j + 1)
            }
          }
        }
        return
      }
      for (let j = from; j < to; j += length) {
        const d = Math.min(length, to - j)
        const triangle = inverseTriangle(u, columns, j, d)
        /** v·T: what distances are measured in. */
        const turn = (v: ArrayLike<number>): number[] =>
          Array.from({ length: d }, (_, b) => {
            let sum = 0
            for (let a = 0; a <= b; a++) sum += v[a] * triangle[a][b]
            return sum
          })
        for (let row = 0; row < rows; row++) {
          const at = row * columns + j
          const scale = scaleOf(row, j)
          let rest = turn(Array.from({ length: d }, (_, e) => quotient(w[at + e], scale)))
          const sum = new Array<number>(d).fill(0)
          tables.forEach(({ entries }, stage) => {
            const turned = Array.from({ length: entries }, (_, code) =>
              turn(entry(stage, row, code)),
            ).flat()
            const code = nearestOf(rest, turned, entries, d)
            integers(codes[stage])[codeAt(row, j)] = code
            rest = rest.map((x, e) => x - turned[code * d + e])
            for (let e = 0; e < d; e++) sum[e] += entry(stage, row, code)[e]
          })
          for (let e = 0; e < d; e++) {
            w[at + e] = sum[e] * scale
            feed(row, j + e, rest[e] * scale, j + d)
          }
        }
      }
    },

    cluster(tables, x, { groupRows, entries, weights, iterations, seeding, seed = 0 }) {
      const { rows: n, columns: d } = x
      if (!(groupRows >= 1 && entries >= 1 && entries <= 65536)) {
        throw new LowbitError('bad-shape', `${entries} entries for groups of ${groupRows}`)
      }
      checkShape('tables', tables, Math.ceil(n / groupRows) * entries, d)
      if (weights) checkShape('weights', weights, n, 1)
      const out = floats(tables)
      for (let group = 0; group * groupRows < n; group++) {
        const [from, to] = [group * groupRows, Math.min(n, (group + 1) * groupRows)]
        const points = floats(x).subarray(from * d, to * d)
        const factors = weights && floats(weights).subarray(from, to)
        const table = out.subarray(group * entries * d, (group + 1) * entries * d)
        const seeds =
          seeding === 'mahalanobis'
            ? spreadSeeds(points, d, entries)
            : plusSeeds(points, d, entries, factors, seededRandom(seed + group))
        seeds.forEach((at, i) => {
          table.set(points.subarray(at * d, (at + 1) * d), i * d)
        })
        lloyd(table, points, d, entries, factors, iterations)
      }
    },

    scatterVectors(sums, x, codes, options) {
      const { rows, columns } = x
      const { length, along, tables, tableRows = rows } = options
      const { from, to, scaleOf, codeAt } = prepare(codes, x, options)
      if (sums.length !== tables.length) {
        throw new LowbitError('bad-shape', `${sums.length} sums for ${tables.length} tables`)
      }
      tables.forEach(({ values, entries }, stage) => {
        checkShape('sums', sums[stage], values.rows, length)
        const total = new Float64Array(values.rows * length)
        for (let row = 0; row < rows; row++) {
          for (let j = from; j < to; j++) {
            const element = along === 'out' ? row % length : (j - from) % length
            const code = integers(codes[stage])[codeAt(row, j)]
            const at = (Math.floor(row / tableRows) * entries + code) * length + element
            total[at] += floats(x)[row * columns + j] * scaleOf(row, j)
          }
        }
        floats(sums[stage]).set(total)
      })
    },

    decodeVectors(out, codes, options) {
      const { rows, columns } = out
      const { length, along, tables } = options
      const { from, to, scaleOf, biasOf, entry, codeAt } = prepare(codes, out, options)
      for (let row = 0; row < rows; row++) {
        for (let j = from; j < to; j++) {
          const element = along === 'out' ? row % length : (j - from) % length
          const sum = tables.reduce((total, _, stage) => {
            return total + entry(stage, row, integers(codes[stage])[codeAt(row, j)])[element]
          }, 0)
          floats(out)[row * columns + j] = sum * scaleOf(row, j) + biasOf(j)
        }
      }
    },

    descendVectors(codes, decoded, weight, hessian, options) {
      const { rows, columns } = weight
      const { length, along, tables, damping, neighbours } = options
      checkShape('decoded', decoded, rows, columns)
      checkShape('hessian', hessian, columns, columns)
      if (along !== 'out') throw new LowbitError('bad-shape', 'only along the rows')
      if (neighbours.length !== tables.length) {
        throw new LowbitError('bad-shape', 'neighbours for each table')
      }
      const { from, to, scaleOf, biasOf, entry, codeAt } = prepare(codes, weight, options)
      tables.forEach(({ entries }, stage) => {
        checkShape('neighbours', neighbours[stage], entries, neighbours[stage].columns)
      })
      const [w, q, h] = [floats(weight), floats(decoded), floats(hessian)]
      for (let row = 0; row < rows; row += length) {
        const high = Math.min(length, rows - row)
        for (let j = from; j < to; j++) {
          const power = h[j * columns + j] + damping
          const target = Array.from({ length: high }, (_, e) => {
            const at = (row + e) * columns
            let slope = damping * (w[at + j] - q[at + j])
            for (let k = 0; k < columns; k++) slope += (w[at + k] - q[at + k]) * h[k * columns + j]
            return power > 0 ? q[at + j] + slope / power : q[at + j]
          })
          const at = codeAt(row, j)
          const value = (e: number): number =>
            tables.reduce((sum, _, i) => sum + entry(i, row, integers(codes[i])[at])[e], 0)
          let changed = false
          tables.forEach((_, stage) => {
            const c = integers(codes[stage])
            const mine = entry(stage, row, c[at])
            const x = target.map((t, e) => {
              const scale = scaleOf(row + e, j)
              return quotient(t - biasOf(j), scale) - (value(e) - mine[e])
            })
            const near = neighbours[stage]
            let best = c[at]
            let least = Number.POSITIVE_INFINITY
            for (let i = 0; i < near.columns; i++) {
              const code = integers(near)[c[at] * near.columns + i]
              const candidate = entry(stage, row, code)
              let sum = 0
              for (let e = 0; e < high; e++) {
                sum += ((x[e] - candidate[e]) * scaleOf(row + e, j)) ** 2
              }
              if (sum < least) [least, best] = [sum, code]
            }
            if (best !== c[at]) changed = true
            c[at] = best
          })
          if (!changed) continue
          for (let e = 0; e < high; e++) {
            q[(row + e) * columns + j] = value(e) * scaleOf(row + e, j) + biasOf(j)
          }
        }
      }
    },
  }
}

/** Lloyd's algorithm; entries without points stay where they are. */
function lloyd(
  table: Float32Array,
  points: Float32Array,
  d: number,
  entries: number,
  weights: Float32Array | undefined,
  iterations: number,
): void {
  const n = points.length / d
  for (let iteration = 0; iteration < iterations; iteration++) {
    const sums = new Float64Array(entries * (d + 1))
    for (let i = 0; i < n; i++) {
      const at = nearestOf(points.subarray(i * d, (i + 1) * d), table, entries, d)
      const weight = weights ? weights[i] : 1
      for (let e = 0; e < d; e++) sums[at * (d + 1) + e] += weight * points[i * d + e]
      sums[at * (d + 1) + d] += weight
    }
    for (let c = 0; c < entries; c++) {
      const weight = sums[c * (d + 1) + d]
      if (!(weight > 0)) continue
      for (let e = 0; e < d; e++) table[c * d + e] = sums[c * (d + 1) + e] / weight
    }
  }
}

/** Points evenly spaced in the order of their Mahalanobis distance from the mean. */
function spreadSeeds(points: Float32Array, d: number, entries: number): number[] {
  const n = points.length / d
  const mean = Array.from({ length: d }, (_, e) => {
    let sum = 0
    for (let i = 0; i < n; i++) sum += points[i * d + e]
    return sum / n
  })
  const covariance = new Float64Array(d * d)
  for (let i = 0; i < n; i++) {
    for (let a = 0; a < d; a++) {
      for (let b = 0; b < d; b++) {
        const [u, w] = [points[i * d + a] - mean[a], points[i * d + b] - mean[b]]
        covariance[a * d + b] += (u * w) / n
      }
    }
  }
  const trace = Array.from({ length: d }, (_, a) => covariance[a * d + a]).reduce(
    (x, y) => x + y,
    0,
  )
  // Cholesky, with a floor for directions in which all points agree.
  const l = new Float64Array(d * d)
  for (let a = 0; a < d; a++) {
    for (let b = 0; b <= a; b++) {
      let s = covariance[a * d + b]
      for (let m = 0; m < b; m++) s -= l[a * d + m] * l[b * d + m]
      l[a * d + b] = a === b ? Math.sqrt(Math.max(s, 1e-6 * trace + 1e-30)) : s / l[b * d + b]
    }
  }
  const keys = Array.from({ length: n }, (_, i) => {
    const v: number[] = []
    for (let a = 0; a < d; a++) {
      let s = points[i * d + a] - mean[a]
      for (let m = 0; m < a; m++) s -= l[a * d + m] * v[m]
      v.push(s / l[a * d + a])
    }
    return Math.fround(v.reduce((sum, x) => sum + x * x, 0))
  })
  const order = Array.from(keys.keys()).sort((a, b) => keys[a] - keys[b] || a - b)
  return Array.from(
    { length: entries },
    (_, c) => order[Math.min(n - 1, Math.floor(((2 * c + 1) * n) / (2 * entries)))],
  )
}

function plusSeeds(
  points: Float32Array,
  d: number,
  entries: number,
  weights: Float32Array | undefined,
  random: () => number,
): number[] {
  const n = points.length / d
  const seeds = [Math.floor(random() * n)]
  const far = new Float64Array(n).fill(Number.POSITIVE_INFINITY)
  while (seeds.length < entries) {
    const last = seeds[seeds.length - 1]
    let total = 0
    for (let i = 0; i < n; i++) {
      far[i] = Math.min(far[i], (weights ? weights[i] : 1) * between(points, i, points, last, d))
      total += far[i]
    }
    let left = random() * total
    let chosen = 0
    for (let i = 0; i < n && left >= 0; i++) {
      if (far[i] > 0) chosen = i
      left -= far[i]
    }
    seeds.push(chosen)
  }
  return seeds
}

const quotient = (w: number, scale: number): number => (scale === 0 ? 0 : w / scale)

function between(
  a: ArrayLike<number>,
  i: number,
  b: ArrayLike<number>,
  j: number,
  d: number,
): number {
  let sum = 0
  for (let e = 0; e < d; e++) sum += (a[i * d + e] - b[j * d + e]) ** 2
  return sum
}

function nearestOf(
  x: ArrayLike<number>,
  table: ArrayLike<number>,
  entries: number,
  d: number,
): number {
  let best = 0
  let least = Number.POSITIVE_INFINITY
  for (let i = 0; i < entries; i++) {
    const distance = between(x, 0, table, i, d)
    if (distance < least) [least, best] = [distance, i]
  }
  return best
}

/** The inverse of the upper triangular d × d block of U at (j, j). */
function inverseTriangle(u: Float32Array, columns: number, j: number, d: number): number[][] {
  const at = (a: number, b: number): number => u[(j + a) * columns + j + b]
  const out = Array.from({ length: d }, () => new Array<number>(d).fill(0))
  for (let b = 0; b < d; b++) {
    for (let a = b; a >= 0; a--) {
      let sum = a === b ? 1 : 0
      for (let m = a + 1; m <= b; m++) sum -= at(a, m) * out[m][b]
      out[a][b] = sum / at(a, a)
    }
  }
  return out
}
