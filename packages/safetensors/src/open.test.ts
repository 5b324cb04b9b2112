import { describe, expect, it } from 'vitest'
import { openSafetensors } from './open.ts'
import type { Source } from './source.ts'

function file(header: string, data: Uint8Array): Uint8Array<ArrayBuffer> {
  const text = new TextEncoder().encode(header)
  const bytes = new Uint8Array(8 + text.length + data.length)
  new DataView(bytes.buffer).setBigUint64(0, BigInt(text.length), true)
  bytes.set(text, 8)
  bytes.set(data, 8 + text.length)
  return bytes
}

const data = Uint8Array.from({ length: 12 }, (_, index) => index + 1)
const header =
  '{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U16","shape":[2,2],"data_offsets":[4,12]}}'
const model = file(header, data)

/** A source that keeps a list of what was read. */
function watched(bytes: Uint8Array, size = bytes.length) {
  const reads: [number, number][] = []
  let closed = 0
  const source: Source = {
    size,
    async read(offset, length) {
      reads.push([offset, length])
      return bytes.slice(offset, offset + length)
    },
    async close() {
      closed++
    },
  }
  return { source, reads, closed: () => closed }
}

describe('openSafetensors', () => {
  it('reads the header alone, then what is asked for', async () => {
    const { source, reads } = watched(model)
    const opened = await openSafetensors(source)
    expect(reads).toEqual([
      [0, 8],
      [8, header.length],
    ])
    expect(opened.byteLength).toBe(model.length)
    expect([...(await opened.read('a'))]).toEqual([1, 2, 3, 4])
    expect([...(await opened.readRange('b', 2, 3))]).toEqual([7, 8, 9])
    const start = 8 + header.length
    expect(reads.slice(2)).toEqual([
      [start, 4],
      [start + 6, 3],
    ])
  })

  it.each([
    ['bytes', model],
    ['an ArrayBuffer', model.buffer],
    ['a Blob', new Blob([model])],
    ['a File', new File([model], 'm')],
    ['bytes within others', new Uint8Array([0, ...model, 0]).subarray(1, -1)],
  ])('opens %s', async (_, input) => {
    const opened = await openSafetensors(input)
    expect([...opened.tensors.keys()]).toEqual(['a', 'b'])
    expect(new Uint16Array((await opened.read('b')).buffer)).toHaveLength(4)
  })

  it('names the file in errors', async () => {
    const named = await openSafetensors(new File([model], 'picked'))
    await expect(named.read('c')).rejects.toMatchObject({ file: 'picked', tensor: 'c' })
    const opened = await openSafetensors(new File([model], 'picked'), { name: 'mine' })
    expect(opened.name).toBe('mine')
    expect(opened.tensors.get('a')?.file).toBe('mine')
    await expect(openSafetensors(new Uint8Array(3), { name: 'tiny' })).rejects.toMatchObject({
      code: 'too-short',
      file: 'tiny',
    })
  })

  it('refuses a file that is too short for a length', async () => {
    for (const size of [0, 1, 7]) {
      await expect(openSafetensors(new Uint8Array(size))).rejects.toMatchObject({
        code: 'too-short',
      })
    }
    await expect(openSafetensors(new Uint8Array(8))).rejects.toMatchObject({ code: 'header-start' })
  })

  it('never asks for more than the file has, nor for a header above the limit', async () => {
    for (const [length, code] of [
      [2n ** 64n - 1n, 'header-too-large'],
      [100_000_001n, 'header-too-large'],
      [100_000_000n, 'header-past-end'],
      [9n, 'header-past-end'],
    ] as const) {
      const bytes = new Uint8Array(16)
      new DataView(bytes.buffer).setBigUint64(0, length, true)
      const { source, reads } = watched(bytes)
      await expect(openSafetensors(source)).rejects.toMatchObject({ code })
      expect(reads).toEqual([[0, 8]])
    }
  })

  it('refuses a source that gives less than its size promises', async () => {
    const { source } = watched(model.subarray(0, 20), model.length)
    await expect(openSafetensors(source)).rejects.toMatchObject({ code: 'short-read' })
  })

  it('refuses names that are not there, those of Object.prototype too', async () => {
    const opened = await openSafetensors(model)
    for (const name of ['c', '', '__proto__', 'toString', '__metadata__']) {
      await expect(opened.read(name)).rejects.toMatchObject({
        code: 'tensor-not-found',
        tensor: name,
      })
    }
  })

  it('refuses ranges outside of the tensor', async () => {
    const opened = await openSafetensors(model)
    for (const [offset, length] of [
      [-1, 1],
      [0, 5],
      [4, 1],
      [0.5, 1],
      [0, Number.NaN],
      [0, -1],
      [2 ** 53, 1],
      [1, Number.MAX_SAFE_INTEGER],
    ] as const) {
      await expect(opened.readRange('a', offset, length)).rejects.toMatchObject({
        code: 'out-of-range',
        tensor: 'a',
      })
    }
    expect(await opened.readRange('a', 4, 0)).toHaveLength(0)
  })

  it('closes the source once and reads no more', async () => {
    const { source, closed } = watched(model)
    const opened = await openSafetensors(source)
    await opened.close()
    await opened.close()
    expect(closed()).toBe(1)
    await expect(opened.read('a')).rejects.toMatchObject({ code: 'closed', tensor: 'a' })
    await expect(opened.readRange('a', 0, 1)).rejects.toMatchObject({ code: 'closed' })
  })

  it('opens a header whose length is not a multiple of 8', async () => {
    const opened = await openSafetensors(file(`${header} `, data))
    expect([...(await opened.read('a'))]).toEqual([1, 2, 3, 4])
  })
})
