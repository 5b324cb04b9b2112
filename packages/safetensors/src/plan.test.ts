import { describe, expect, it } from 'vitest'
import { DTYPES, type Dtype } from './dtype.ts'
import { planSafetensors, type TensorEntry } from './plan.ts'

function entry(name: string, dtype: Dtype = 'U8', shape: number[] = [1]): TensorEntry {
  return { name, dtype, shape, data: () => new Uint8Array(0) }
}

function json(plan: { head: Uint8Array }): string {
  return new TextDecoder().decode(plan.head.subarray(8))
}

function refusal(code: string, tensor?: string) {
  return expect.objectContaining({ name: 'SafetensorsError', code, tensor })
}

describe('planSafetensors', () => {
  it('writes the header of the reference library, padded to 8 bytes', () => {
    const plan = planSafetensors([entry('b'), entry('a', 'F32', [2])], { k: 'v' })
    const text =
      '{"__metadata__":{"k":"v"},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"U8","shape":[1],"data_offsets":[8,9]}}'
    expect(json(plan).trimEnd()).toBe(text)
    expect(plan.head.length % 8).toBe(0)
    expect(new DataView(plan.head.buffer).getBigUint64(0, true)).toBe(BigInt(plan.head.length - 8))
    expect(plan.byteLength).toBe(plan.head.length + 9)
    expect(plan.tensors.map(({ entry, byteLength }) => [entry.name, byteLength])).toEqual([
      ['a', 8],
      ['b', 1],
    ])
    expect(json(planSafetensors([]))).toBe('{}      ')
  })

  it('puts larger alignment first', () => {
    const names = planSafetensors(DTYPES.map((dtype) => entry(dtype, dtype, [8]))).tensors
    expect(names.map(({ entry }) => entry.name)).toEqual(DTYPES.toReversed())
  })

  it('orders names by their UTF-8 bytes', () => {
    const names = ['\u{10000}', '\uffff', '\ue000', '\ud7ff', 'é', 'b', 'ab', 'a', '']
    const { tensors } = planSafetensors(names.map((name) => entry(name)))
    const sorted = names.toSorted((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)))
    expect(tensors.map(({ entry }) => entry.name)).toEqual(sorted)
  })

  it('keeps every name and key as it is', () => {
    const metadata = new Map([
      ['9', 'a'],
      ['1', 'b'],
      ['__proto__', 'c'],
    ])
    const text = json(planSafetensors([entry('__proto__'), entry('7')], metadata))
    expect(text).toContain('{"__metadata__":{"9":"a","1":"b","__proto__":"c"},"7":{')
    expect(text).toContain('"__proto__":{"dtype":"U8"')
  })

  it('refuses what no file can hold', () => {
    expect(() => planSafetensors([entry('__metadata__')])).toThrow(
      refusal('bad-name', '__metadata__'),
    )
    expect(() => planSafetensors([entry('\ud800')])).toThrow(refusal('bad-name', '\ud800'))
    expect(() => planSafetensors([entry('a'), entry('a')])).toThrow(refusal('duplicate-key', 'a'))
    expect(() => planSafetensors([entry('a', 'F128' as Dtype)])).toThrow(
      refusal('unknown-dtype', 'a'),
    )
    expect(() => planSafetensors([entry('a', 'U8', [-1])])).toThrow(refusal('bad-shape', 'a'))
    expect(() => planSafetensors([entry('a', 'U8', [2 ** 53])])).toThrow(
      refusal('shape-overflow', 'a'),
    )
    expect(() => planSafetensors([entry('a', 'F4', [1])])).toThrow(refusal('not-byte-aligned', 'a'))
    const vast = Array.from({ length: 9 }, (_, number) => entry(`${number}`, 'U8', [2 ** 50 - 1]))
    expect(() => planSafetensors(vast)).toThrow(refusal('shape-overflow', '8'))
  })

  it('refuses metadata that is not text', () => {
    const bad = [{ k: 1 }, { k: null }, { k: '\udc00' }, { '\ud800': 'v' }]
    for (const metadata of bad) {
      expect(() => planSafetensors([], metadata as unknown as Record<string, string>)).toThrow(
        refusal('bad-metadata'),
      )
    }
  })

  it('refuses a header above the limit', () => {
    expect(() => planSafetensors([], { k: 'x'.repeat(100_000_000) })).toThrow(
      refusal('header-too-large'),
    )
  })
})
