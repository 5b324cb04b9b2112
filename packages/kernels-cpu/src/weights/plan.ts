/** Whether a quantized matrix can be run from its codes, and as what; or why not. */

import {
  type Blocks,
  gridValues,
  type QuantizedMatrix,
  type Scale,
  scaleValues,
} from '@lowbit/core'

/**
 * A weight is scale · (value(code) + center) + offset, with a scale and an offset for every row and
 * group of columns, and one center for the whole matrix, which spares symmetric grids the offsets.
 */
export interface Plan {
  /** Container of a code. */
  readonly bits: 2 | 4 | 8
  /** Values of the codes; none where value(code) = code. */
  readonly table?: Float32Array
  /** Columns of a group. */
  readonly group: number
  /** What a group is padded to, with codes that meet zeros. */
  readonly padded: number
  readonly groups: number
  /** [row][group] */
  readonly scales: Float32Array
  /** None where all are zero. */
  readonly offsets?: Float32Array
  readonly center: number
  /** In words, without what the multiply does: "int4, groups of 128". */
  readonly name: string
}

/** Shorter groups cost more in scales than dense weights do. */
const SHORTEST_GROUP = 3

/**
 * 8-bit activations have a factor for each 32 columns, so groups are padded to a multiple of it where
 * that adds no more than this.
 */
const ACTIVATION_BLOCK = 32
const MOST_PADDING = 1.25

export function planWeight(matrix: QuantizedMatrix, bytes: boolean): Plan | string {
  const { rows, columns } = matrix
  if (matrix.stages.length !== 1) return `${matrix.stages.length} stages`
  if (matrix.sparse) return 'sparse entries'
  if (matrix.rotation) return 'a rotation'
  if (matrix.rowScale) return 'a scale for each row'
  if (matrix.columnBias) return 'a bias for each column'
  const [stage] = matrix.stages
  if (stage.columns && (stage.columns[0] !== 0 || stage.columns[1] !== columns)) {
    return 'a stage over some columns'
  }
  if (stage.vector.length !== 1) return 'vectors'
  const { grid } = stage
  if (grid.kind === 'codebook') return 'a codebook'
  if (grid.kind === 'lookup' && grid.tables.values.length !== grid.entries) return 'several tables'
  const levels = grid.kind === 'integer' ? grid.levels : gridValues(grid).length
  if (levels > 256) return 'codes of more than 8 bits'

  const parts = [stage.scale, stage.zero, stage.bias].filter((part) => part !== undefined)
  const grids: { rows: number; columns: number }[] = []
  for (const part of parts) {
    const blocks = rectangles(part.blocks, rows, columns)
    if (!blocks) return 'blocks of elements across rows'
    grids.push(blocks)
  }
  // Groups are the smallest blocks; the larger ones must be made of them.
  const group = Math.min(columns, ...grids.map((blocks) => blocks.columns))
  if (grids.some((blocks) => blocks.columns < columns && blocks.columns % group !== 0)) {
    return 'scales and zeros over different blocks'
  }
  if (group < SHORTEST_GROUP && group < columns) return `groups of ${group}`

  const bits = levels <= 4 ? 2 : levels <= 16 ? 4 : 8
  const short = Math.ceil(group / ACTIVATION_BLOCK) * ACTIVATION_BLOCK > group * MOST_PADDING
  const step = bytes && grid.kind === 'integer' && !short ? ACTIVATION_BLOCK : bits === 2 ? 8 : 4
  const groups = Math.ceil(columns / group)
  const read = (scale: Scale | undefined) => scale && reader(scale, matrix, group)
  const [scale, zero, bias] = [read(stage.scale), read(stage.zero), read(stage.bias)]
  const integer = grid.kind === 'integer' ? grid : undefined
  const scales = new Float32Array(rows * groups)
  const offsets = new Float32Array(rows * groups)
  /** The shift of every code, as long as it is the same and nothing comes on top. */
  let center: number | undefined
  let even = true
  for (let row = 0; row < rows; row++) {
    for (let g = 0; g < groups; g++) {
      // s·(lowest + step·c − z) + b = (s·step)·c + (s·(lowest − z) + b)
      const s = scale ? scale(row, g) : 1
      const shift = (integer?.lowest ?? 0) - (zero ? zero(row, g) : 0)
      const plus = bias ? bias(row, g) : 0
      scales[row * groups + g] = s * (integer?.step ?? 1)
      offsets[row * groups + g] = s * shift + plus
      center ??= shift
      if (plus !== 0 || shift !== center) even = false
    }
  }
  const size = groups === 1 ? 'whole rows' : `groups of ${group}`
  return {
    bits,
    ...(integer ? {} : { table: gridValues(grid) }),
    group,
    padded: Math.ceil(group / step) * step,
    groups,
    scales,
    ...(even ? {} : { offsets }),
    center: even ? (center ?? 0) / (integer?.step ?? 1) : 0,
    name: `${nameOf(grid, levels)}, ${size}`,
  }
}

function nameOf(grid: { kind: string; bits?: number }, levels: number): string {
  if (grid.kind === 'integer') return `int${grid.bits}`
  return `${grid.kind} table of ${levels}`
}

function rectangles(
  blocks: Blocks,
  rows: number,
  columns: number,
): { rows: number; columns: number } | undefined {
  if ('rows' in blocks) return blocks
  const { elements } = blocks
  if (columns % elements === 0) return { rows: 1, columns: elements }
  if (elements % columns === 0) return { rows: elements / columns, columns }
  return elements >= rows * columns ? { rows, columns } : undefined
}

/** (row, group) → the scale's value there. */
function reader(scale: Scale, matrix: QuantizedMatrix, group: number) {
  const { rows, columns } = matrix
  const values = scaleValues(scale, rows, columns)
  const blocks = rectangles(scale.blocks, rows, columns)!
  const across = Math.ceil(columns / blocks.columns)
  return (row: number, g: number): number =>
    values[Math.floor(row / blocks.rows) * across + Math.floor((g * group) / blocks.columns)]
}
