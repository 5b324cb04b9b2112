/**
 * The upper triangular U with A⁻¹ = UᵀU, for A = P·H·Pᵀ + damping. With the order of A's rows and columns turned
 * round, A' = L·Lᵀ (Cholesky), and U is L⁻¹ turned round again. In blocks of 32 columns: a workgroup factors the
 * block on the diagonal and inverts it, everything else is products.
 */

import type { Device, Span } from '../gpu/device.ts'
import { elementwise, LANES, type Shader } from '../gpu/shader.ts'
import { plain, product, turned } from './product.ts'

const SIZE = 32
/** Columns of the inverse that are done together. */
const WIDE = 256

const prepare = elementwise('factor: A turned round', {
  reads: { h: 'f32', order: 'u32' },
  writes: { a: 'f32' },
  params: { n: 'u32', damping: 'f32', ordered: 'u32' },
  body: `
  let row = i / p.n;
  let column = i % p.n;
  var begin = p.n - 1u - row;
  var to = p.n - 1u - column;
  if (p.ordered == 1u) { begin = order[p.order_at + begin]; to = order[p.order_at + to]; }
  var value = h[p.h_at + begin * p.n + to];
  if (row == column) { value += p.damping; }
  a[p.a_at + i] = value;`,
})

/** A pivot below 2⁻²⁴ of its diagonal is noise in f32. Whether a number is finite is read from its bits. */
const onDiagonal: Shader = {
  name: 'factor: a block on the diagonal',
  reads: { a: 'f32', h: 'f32', order: 'u32' },
  writes: { inverse: 'f32', bad: 'u32' },
  params: { n: 'u32', begin: 'u32', size: 'u32', damping: 'f32', ordered: 'u32' },
  code: `
var<workgroup> l: array<f32, ${SIZE * SIZE}>;
var<workgroup> x: array<f32, ${SIZE * SIZE}>;
fn finite(v: f32) -> bool { return (bitcast<u32>(v) & 0x7f800000u) != 0x7f800000u; }
@compute @workgroup_size(${SIZE})
fn main(@builtin(local_invocation_index) lane: u32) {
  for (var i = 0u; i < p.size; i++) {
    if (lane < p.size) { l[i * ${SIZE}u + lane] = a[p.a_at + (p.begin + i) * p.n + p.begin + lane]; }
  }
  workgroupBarrier();
  for (var j = 0u; j < p.size; j++) {
    let pivot = l[j * ${SIZE}u + j];
    var at = p.n - 1u - p.begin - j;
    if (p.ordered == 1u) { at = order[p.order_at + at]; }
    let whole = h[p.h_at + at * p.n + at] + p.damping;
    let good = finite(pivot) && pivot > whole * 5.9604645e-8 && whole > 0.0;
    let root = sqrt(select(1.0, pivot, good));
    workgroupBarrier();
    if (lane == j) {
      l[j * ${SIZE}u + j] = root;
      if (!good) { bad[p.bad_at] = 1u; }
    }
    if (lane > j && lane < p.size) { l[lane * ${SIZE}u + j] /= root; }
    workgroupBarrier();
    if (lane > j && lane < p.size) {
      for (var k = j + 1u; k <= lane; k++) {
        l[lane * ${SIZE}u + k] -= l[lane * ${SIZE}u + j] * l[k * ${SIZE}u + j];
      }
    }
    workgroupBarrier();
  }
  // A column of L⁻¹ each, by forward substitution.
  for (var i = 0u; i < p.size; i++) {
    var sum = select(0.0, 1.0, i == lane);
    for (var k = lane; k < i; k++) { sum -= l[i * ${SIZE}u + k] * x[k * ${SIZE}u + lane]; }
    var value = 0.0;
    if (i >= lane) { value = sum / l[i * ${SIZE}u + i]; }
    x[i * ${SIZE}u + lane] = value;
    if (lane < p.size) { inverse[p.inverse_at + i * ${SIZE}u + lane] = value; }
  }
}`,
}

const place = elementwise('factor: inverse of a block', {
  reads: { inverse: 'f32' },
  writes: { x: 'f32' },
  params: { n: 'u32', begin: 'u32', size: 'u32' },
  body: `
  let row = i / p.size;
  let column = i % p.size;
  x[p.x_at + (p.begin + row) * p.n + p.begin + column] = inverse[p.inverse_at + row * ${SIZE}u + column];`,
})

const finish = elementwise('factor: U', {
  reads: { x: 'f32' },
  writes: { out: 'f32', bad: 'u32' },
  params: { n: 'u32' },
  body: `
  let row = i / p.n;
  let column = i % p.n;
  var value = 0.0;
  if (row <= column) { value = x[p.x_at + (p.n - 1u - row) * p.n + p.n - 1u - column]; }
  if ((bitcast<u32>(value) & 0x7f800000u) == 0x7f800000u) { bad[p.bad_at] = 1u; }
  out[p.out_at + i] = value;`,
})

export async function factorInverse(
  device: Device,
  out: Span,
  h: Span,
  n: number,
  damping: number,
  order: Uint32Array | undefined,
): Promise<boolean> {
  const all = n * n
  const blocks = Math.ceil(n / SIZE)
  const held: Span[] = []
  const room = (length: number, values?: Uint32Array): Span => {
    const span = device.allocate(length, values)
    held.push(span)
    return span
  }
  const part = (span: Span, at: number, length: number): Span => ({
    ...{ block: span.block, at: span.at + at, length },
  })
  try {
    const [a, l, x] = [room(all), room(all), room(all)]
    const [inverses, row, bad] = [room(blocks * SIZE * SIZE), room(SIZE * n), room(1)]
    const places = order ? room(n, order) : h
    const how = { n, damping, ordered: order ? 1 : 0 }
    device.zero(bad)
    device.zero(x)
    const spans = { h, order: places }
    device.run(prepare, { ...spans, a }, { ...how, count: all }, Math.ceil(all / LANES))
    for (let block = 0; block < blocks; block++) {
      const from = block * SIZE
      const size = Math.min(SIZE, n - from)
      const rest = n - from - size
      const inverse = part(inverses, block * SIZE * SIZE, SIZE * SIZE)
      device.run(onDiagonal, { ...spans, a, inverse, bad }, { ...how, begin: from, size }, 1)
      const params = { n, begin: from, size, count: size * size }
      device.run(place, { inverse, x }, params, Math.ceil((size * size) / LANES))
      if (rest === 0) continue
      // The panel below, L₂₁ = A₂₁·L₁₁⁻ᵀ, and A₂₂ −= L₂₁·L₂₁ᵀ.
      const below = (from + size) * n + from
      product(device, {
        ...{ out: plain(l, n, below), a: plain(a, n, below), b: turned(inverse, SIZE) },
        ...{ rows: rest, columns: size, depth: size },
      })
      product(device, {
        out: plain(a, n, (from + size) * n + from + size),
        ...{ a: plain(l, n, below), b: turned(l, n, below) },
        ...{ rows: rest, columns: rest, depth: size, factor: -1, keep: 1, lower: true },
      })
    }
    // Row of blocks i of X = L⁻¹, left of its diagonal: −L_ii⁻¹ · (L_i · X above).
    for (let block = 1; block < blocks; block++) {
      const from = block * SIZE
      const size = Math.min(SIZE, n - from)
      const inverse = part(inverses, block * SIZE * SIZE, SIZE * SIZE)
      // X has nothing above its diagonal: a column begins at its own row.
      for (let left = 0; left < from; left += WIDE) {
        product(device, {
          ...{ out: plain(row, n, left), a: plain(l, n, from * n + left) },
          ...{ b: plain(x, n, left * n + left) },
          ...{ rows: size, columns: Math.min(WIDE, from - left), depth: from - left },
        })
      }
      product(device, {
        ...{ out: plain(x, n, from * n), a: plain(inverse, SIZE), b: plain(row, n) },
        ...{ rows: size, columns: from, depth: size, factor: -1 },
      })
    }
    device.run(finish, { x, out, bad }, { n, count: all }, Math.ceil(all / LANES))
    return new Uint32Array(await device.read(bad))[0] === 0
  } finally {
    for (const span of held) device.release(span)
  }
}
