/** Coordinate descent over vectors, among the entries near to each. */

import { plain, product } from '../algebra/product.ts'
import { borrowing, type Device, type Span } from '../gpu/device.ts'
import { each, elementwise, LANES, remembered, type Shader } from '../gpu/shader.ts'
import {
  FACTOR_PARAMS,
  factorParams,
  gatherFactors,
  gatherTables,
  type VectorPass,
  withCodes,
} from './layout.ts'
import { reach, STEP, squared, stageParams, stages, start } from './pass.ts'

const shaders = new Map<string, Shader>()

/** Threads that share out the candidates of a vector. */
const CANDIDATES = 32

const descendOut = (length: number, count: number): Shader =>
  remembered(shaders, `descend ${length} × ${count}`, () => {
    const fours = Math.ceil(length / 4)
    const part = (s: number) => `part${s}`
    const others = (s: number) =>
      Array.from({ length: count }, (_, i) => (i === s ? '' : ` - ${part(i)}[lane]`)).join('')
    // Threads wait four times a table: what they read of others, `rest` and `scales`, they have read when they first
    // wait in `best_of`, and `best_of` is through when they wait for the next `rest`.
    const four = (from: string, v: number): string =>
      reach(`vec4f(${each(4, (c) => `${from}[${4 * v + c}]`, ', ')})`, length, v)
    return {
      name: `coordinate descent over vectors of ${length}`,
      reads: { h: 'f32', tables: 'vec4f', near: 'u32', factors: 'f32', line: 'f32' },
      writes: { decoded: 'f32', codes: 'u32', errors: 'f32' },
      params: {
        ...{ ...FACTOR_PARAMS, rows: 'u32', begin: 'u32', size: 'u32', first: 'u32', wide: 'u32' },
        damping: 'f32',
        ...stageParams(count, 'table', 'code', 'near', 'candidates'),
      },
      code: `
${each(count, (s) => `var<workgroup> ${part(s)}: array<f32, 16>;`)}
var<workgroup> scales: array<f32, 16>;
${start(CANDIDATES, length)}
  let row = group * ${length}u + lane;
  let mine = lane < ${length}u;
  let live = mine && row < p.rows;
  for (var c = 0u; c < p.size; c++) {
    let j = p.begin + c;
    let place_of_codes = group * p.wide + j - p.first;
    ${each(count, (s) => `var hit${s} = codes[p.codes_at + p.code${s} + place_of_codes];`)}
    ${each(count, (s) => `let old${s} = hit${s};`)}
    if (lane < ${fours * 4}u) {
      var goal = 0.0;
      var scale = 0.0;
      if (live) {
        var slope = line[p.line_at + row * p.columns + j];
        for (var k = 0u; k < c; k++) {
          slope -= err[k * ${length}u + lane] * h[p.h_at + (p.begin + k) * p.columns + j];
        }
        let power = h[p.h_at + j * p.columns + j] + p.damping;
        var aim = decoded[p.decoded_at + row * p.columns + j];
        if (power > 0.0) { aim += slope / power; }
        scale = scale_of(row, j);
        if (scale != 0.0) { goal = (aim - bias_of(j)) / scale; }
      }
      value[lane] = goal;
      scales[lane] = scale;
      ${each(count, (s) => `${part(s)}[lane] = tables[p.table${s} + hit${s} * ${fours}u + lane / 4u][lane % 4u];`)}
    }
    ${each(
      count,
      (s) => `{
    if (lane < ${fours * 4}u) { rest[lane] = value[lane]${others(s)}; }
    workgroupBarrier();
    ${each(fours, (v) => `let r${v} = ${four('rest', v)}; let s${v} = ${four('scales', v)};`)}
    var least = 3.4e38;
    var best = 0u;
    let first_near = p.near_at + p.near${s} + hit${s} * p.candidates${s};
    for (var i = lane; i < p.candidates${s}; i += ${CANDIDATES}u) {
      let at = p.table${s} + near[first_near + i] * ${fours}u;
      ${each(fours, (v) => `let d${v} = (r${v} - ${reach(`tables[at + ${v}u]`, length, v)}) * s${v};`)}
      let far = ${each(fours, (v) => squared(`d${v}`, length, v), ' + ')};
      if (far < least) { least = far; best = i; }
    }
    reduced[lane] = least;
    places[lane] = best;
    hit${s} = near[first_near + best_of(lane, 0u)];
    if (lane < ${fours * 4}u) {
      ${part(s)}[lane] = tables[p.table${s} + hit${s} * ${fours}u + lane / 4u][lane % 4u];
    } }`,
    )}
    let changed = ${each(count, (s) => `hit${s} != old${s}`, ' || ')};
    if (mine) {
      var error = 0.0;
      if (live && changed) {
        let at = p.decoded_at + row * p.columns + j;
        let q = (${each(count, (s) => `${part(s)}[lane]`, ' + ')}) * scales[lane] + bias_of(j);
        error = q - decoded[at];
        decoded[at] = q;
      }
      err[c * ${length}u + lane] = error;
      if (live) { errors[p.errors_at + row * ${STEP}u + c] = error; }
    }
    if (lane == 0u) {
      ${each(count, (s) => `codes[p.codes_at + p.code${s} + place_of_codes] = hit${s};`)}
    }
  }
}`,
    }
  })

const difference = elementwise('what vectors leave', {
  reads: { a: 'f32', b: 'f32' },
  writes: { out: 'f32' },
  params: {},
  body: 'out[p.out_at + i] = a[p.a_at + i] - b[p.b_at + i];',
})

/** `near` are the neighbours of each stage's entries, u16 [entries, candidates]. */
export function runDescent(
  device: Device,
  pass: VectorPass,
  { w, decoded, h }: { readonly w: Span; readonly decoded: Span; readonly h: Span },
  near: readonly (Span & { readonly columns: number })[],
  damping: number,
): void {
  const { rows, columns, length, from, to, wide, entries } = pass
  borrowing(device, (take) => {
    const factors = gatherFactors(device, pass, take)
    const { span: tables, starts } = gatherTables(device, pass, take)
    const size = rows * columns
    const [rest, line, errors] = [take(size), take(size), take(rows * STEP)]
    const all = take(near.reduce((sum, { length: count }) => sum + count, 0))
    const nearStarts: number[] = []
    for (const [i, span] of near.entries()) {
      nearStarts.push(i === 0 ? 0 : nearStarts[i - 1] + near[i - 1].length)
      device.copy({ ...all, at: nearStarts[i], length: span.length }, span)
    }
    device.run(
      difference,
      { a: w, b: decoded, out: rest },
      { count: size },
      Math.ceil(size / LANES),
    )
    device.copy(line, rest)
    product(device, {
      ...{ out: plain(line, columns, from), a: plain(rest, columns), b: plain(h, columns, from) },
      ...{ rows, columns: to - from, depth: columns, keep: damping },
    })
    withCodes(device, pass, (codes, codeStarts) => {
      for (let begin = from; begin < to; begin += STEP) {
        const here = Math.min(STEP, to - begin)
        const candidates = near.flatMap(({ columns: count }, s) => [
          [`candidates${s}`, count] as const,
          [`near${s}`, nearStarts[s]] as const,
        ])
        device.run(
          descendOut(length, entries.length),
          { h, tables, near: all, factors, line, decoded, codes, errors },
          {
            ...{ ...factorParams(pass), ...stages(pass, starts, codeStarts) },
            ...{ ...Object.fromEntries(candidates), damping },
            ...{ rows, begin, size: here, first: from, wide },
          },
          Math.ceil(rows / length),
        )
        const end = begin + here
        if (end === to) continue
        product(device, {
          out: plain(line, columns, end),
          a: plain(errors, STEP),
          b: plain(h, columns, begin * columns + end),
          ...{ rows, columns: to - end, depth: here, factor: -1, keep: 1 },
        })
      }
    })
  })
}
