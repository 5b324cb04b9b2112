import {
  decode,
  isQuantized,
  packCodes,
  type QuantizedMatrix,
  signedGrid,
  unsignedGrid,
} from '@lowbit/core'
import { describeFormat, scalarSamples } from '@lowbit/testing'
import { describe, expect, it } from 'vitest'
import { dense } from './dense.ts'
import { gptq, gptqV2 } from './gptq.ts'
import { FORMATS } from './index.ts'
import { lowbit } from './lowbit.ts'

describeFormat(lowbit)
describeFormat(dense)
describeFormat(gptq, undefined, { optional: ['g_idx'] })
describeFormat(gptqV2, undefined, { optional: ['g_idx'] })

it('every layout is registered under its own name, dense last', () => {
  const names = FORMATS.map(({ name }) => name)
  expect(new Set(names).size).toBe(names.length)
  expect(names.at(-1)).toBe('dense')
})

describe('gptq, against what the field guide and other programs say', () => {
  const symmetric = (): QuantizedMatrix => {
    const found = scalarSamples().find(
      ({ matrix }) =>
        gptq.refuses(matrix) === undefined &&
        isQuantized(matrix) &&
        !matrix.stages[0].zero &&
        matrix.stages[0].codes.bits === 4,
    )
    if (!found || !isQuantized(found.matrix)) throw new Error('no symmetric 4-bit sample')
    return found.matrix
  }
  const words = (bytes: Uint8Array): Uint32Array => new Uint32Array(bytes.slice().buffer)

  it('a symmetric 4-bit checkpoint has zero words 0x77777777 in v1 and 0x88888888 in v2', () => {
    const v1 = words(gptq.write('m', symmetric()).get('qzeros')!.bytes)
    const v2 = words(gptqV2.write('m', symmetric()).get('qzeros')!.bytes)
    expect(new Set(v1)).toEqual(new Set([0x77777777]))
    expect(new Set(v2)).toEqual(new Set([0x88888888]))
  })

  it('a v1 file that really holds v2 zeros is told by its constant', () => {
    const matrix = symmetric()
    const config = { quantization_config: { quant_method: 'gptq', bits: 4, group_size: 32 } }
    const read = gptq.read('m', gptqV2.write('m', matrix), { config })
    expect(isQuantized(read) && decode(read)).toEqual(decode(matrix))
  })

  it('3-bit codes lie in three words as AutoGPTQ packs them', () => {
    // 32 rows to fill the zero points' words, 32 columns for three words of codes.
    const codes = Uint16Array.from({ length: 32 * 32 }, (_, i) => (i * 7 + (i >> 5)) % 8)
    const matrix = scalarMatrixOf(32, 32, 3, codes)
    const [w0, w1, w2] = [0, 1, 2].map(
      (k) => words(gptq.write('m', matrix).get('qweight')!.bytes)[k * 32],
    )
    const row = [...codes.subarray(0, 32)]
    for (let j = 0; j < 10; j++) expect((w0 >>> (3 * j)) & 7).toBe(row[j])
    expect((w0 >>> 30) | ((w1 & 1) << 2)).toBe(row[10])
    for (let j = 0; j < 10; j++) expect((w1 >>> (1 + 3 * j)) & 7).toBe(row[11 + j])
    expect((w1 >>> 31) | ((w2 & 3) << 1)).toBe(row[21])
    for (let j = 0; j < 10; j++) expect((w2 >>> (2 + 3 * j)) & 7).toBe(row[22 + j])
  })

  it('a zero point of 0 is refused in v1 with the way out, and kept in v2', () => {
    const matrix = withZeroPoints(0)
    expect(gptq.refuses(matrix)).toMatch(/gptq_v2/)
    expect(gptqV2.refuses(matrix)).toBeUndefined()
  })

  it('mixed settings are written as overrides', () => {
    const config = gptq.config(
      new Map([
        ['a.q', { bits: 4, groupSize: 128, symmetric: true, ordered: false }],
        ['a.k', { bits: 4, groupSize: 128, symmetric: true, ordered: false }],
        ['a.v', { bits: 8, groupSize: 64, symmetric: true, ordered: false }],
      ]),
    )
    expect(config.quantization_config).toMatchObject({
      bits: 4,
      group_size: 128,
      sym: true,
      checkpoint_format: 'gptq',
      dynamic: { '+:^a\\.v$': { bits: 8, group_size: 64, sym: true } },
    })
  })

  function withZeroPoints(zero: number): QuantizedMatrix {
    const matrix = scalarMatrixOf(32, 32, 4, new Uint16Array(32 * 32))
    const [stage] = matrix.stages
    const blocks = { rows: 1, columns: 32 }
    return {
      ...matrix,
      stages: [
        {
          ...stage,
          grid: unsignedGrid(4),
          zero: { blocks, values: { type: 'u4', values: new Float32Array(32).fill(zero) } },
        },
      ],
    }
  }

  function scalarMatrixOf(
    rows: number,
    columns: number,
    bits: number,
    codes: Uint16Array,
  ): QuantizedMatrix {
    return {
      rows,
      columns,
      stages: [
        {
          codes: packCodes(codes, bits),
          vector: { length: 1, along: 'in' },
          grid: signedGrid(bits),
          scale: {
            blocks: { rows: 1, columns },
            values: { type: 'f16', values: new Float32Array(rows).fill(0.5) },
          },
        },
      ],
    }
  }
})

describe('the native layout distrusts its description', () => {
  const tensors = lowbit.write('m', scalarSamples()[0].matrix)
  const broken = (matrix: object, rest: object = {}) => {
    const raw = tensors.get('lowbit')!
    const json = JSON.parse(new TextDecoder().decode(raw.bytes))
    const bytes = new TextEncoder().encode(
      JSON.stringify({ ...json, matrix: { ...json.matrix, ...matrix }, ...rest }),
    )
    return new Map([...tensors, ['lowbit', { ...raw, shape: [bytes.length], bytes }] as const])
  }
  it.each([
    ['another version', broken({}, { version: 9 }), /version/],
    ['absurd rows', broken({ rows: 2 ** 52 }), /rows/],
    ['rows that do not fit', broken({ rows: 100_000 }), /codes and needs/],
    ['unknown keys', broken({ extra: {} }), /valid/],
    ['no stages', broken({ stages: [] }), /at least one stage/],
    [
      'no JSON',
      new Map([
        ...tensors,
        ['lowbit', { dtype: 'U8', shape: [2], bytes: Uint8Array.of(123, 34) }] as const,
      ]),
      /not JSON/,
    ],
  ])('%s', (_, stored, message) => {
    expect(() => lowbit.read('m', stored, { config: {} })).toThrow(message)
    expect(() => lowbit.read('m', stored, { config: {} })).toThrow(/tensor m/)
  })
})
