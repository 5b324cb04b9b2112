/** What passes over vectors share: where the parts of what they are given lie. */

import type { VectorPass as Pass } from '@lowbit/core'
import { borrowing, type Device, partOf, type Span } from '../gpu/device.ts'
import { elementwise, LANES, type Shader } from '../gpu/shader.ts'
import type { GpuTensor } from '../tensors.ts'

export type VectorPass = Pass<GpuTensor>

/** How the scales and biases of a pass are read from `factors`: rowScale, columnScale, columnBias, one after the other. */
export const FACTOR_PARAMS: Shader['params'] = {
  ...{ columns: 'u32', across: 'u32', scale_columns: 'u32', column_at: 'u32', bias_at: 'u32' },
  ...{ has_row: 'u32', has_column: 'u32', has_bias: 'u32' },
}

export const FACTOR_CODE = `
fn scale_of(row: u32, column: u32) -> f32 {
  var scale = 1.0;
  if (p.has_row == 1u) { scale = factors[p.factors_at + row * p.across + column / p.scale_columns]; }
  if (p.has_column == 1u) { scale *= factors[p.factors_at + p.column_at + column]; }
  return scale;
}
fn bias_of(column: u32) -> f32 {
  if (p.has_bias == 1u) { return factors[p.factors_at + p.bias_at + column]; }
  return 0.0;
}`

export function factorParams(pass: VectorPass): Record<string, number> {
  const { columns, across, scaleColumns, rowScale, columnScale, columnBias } = pass
  const column = rowScale?.length ?? 0
  return {
    ...{ columns, across, scale_columns: scaleColumns, column_at: column },
    bias_at: column + (columnScale?.length ?? 0),
    ...{ has_row: rowScale ? 1 : 0, has_column: columnScale ? 1 : 0, has_bias: columnBias ? 1 : 0 },
  }
}

/** The factors of a pass in one buffer. */
export function gatherFactors(
  device: Device,
  { rowScale, columnScale, columnBias }: VectorPass,
  take: (length: number) => Span,
): Span {
  const parts = [rowScale, columnScale, columnBias].filter((part) => part !== undefined)
  const all = take(
    Math.max(
      1,
      parts.reduce((sum, { length }) => sum + length, 0),
    ),
  )
  let at = 0
  for (const part of parts) {
    device.copy(partOf(all, at, part.length), part)
    at += part.length
  }
  return all
}

/** Entries filled up with zeros to vectors of four numbers. */
const pad = elementwise('entries in fours', {
  reads: { x: 'f32' },
  writes: { out: 'f32' },
  params: { length: 'u32', wide: 'u32' },
  body: `
  let e = i % p.wide;
  var value = 0.0;
  if (e < p.length) { value = x[p.x_at + (i / p.wide) * p.length + e]; }
  out[p.out_at + i] = value;`,
})

/** All tables in one buffer, entries in fours; where each begins is counted in fours. */
export function gatherTables(
  device: Device,
  { tables, length }: Pick<VectorPass, 'tables' | 'length'>,
  take: (length: number) => Span,
): { span: Span; starts: number[]; total: number } {
  const fours = Math.ceil(length / 4)
  const starts: number[] = []
  let total = 0
  for (const { rows } of tables) {
    starts.push(total * fours)
    total += rows
  }
  const span = take(total * fours * 4)
  for (const [i, x] of tables.entries()) {
    const count = x.rows * fours * 4
    const out = partOf(span, starts[i] * 4, count)
    device.run(pad, { x, out }, { count, length, wide: fours * 4 }, Math.ceil(count / LANES))
  }
  return { span, starts, total }
}

/** Codes of all stages in one buffer, for the time of `work`. */
export function withCodes(
  device: Device,
  { codes }: Pick<VectorPass, 'codes'>,
  work: (span: Span, starts: number[]) => void,
): void {
  const size = codes[0].length
  const starts = codes.map((_, i) => i * size)
  borrowing(device, (take) => {
    const span = take(size * codes.length)
    for (const [i, tensor] of codes.entries()) device.copy(partOf(span, starts[i], size), tensor)
    work(span, starts)
    for (const [i, tensor] of codes.entries()) device.copy(tensor, partOf(span, starts[i], size))
  })
}
