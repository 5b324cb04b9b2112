import { describe, expect, it } from 'vitest'
import { blobSource, bytesSource, readExactly, type Source, toSource } from './source.ts'

const bytes = Uint8Array.from({ length: 64 }, (_, index) => index)
const place = { file: 'f', tensor: 't' }

describe('bytesSource', () => {
  it('reads a copy', async () => {
    const source = bytesSource(bytes)
    const part = await source.read(3, 4)
    expect([...part]).toEqual([3, 4, 5, 6])
    part[0] = 99
    expect(bytes[3]).toBe(3)
    expect(part.buffer.byteLength).toBe(4)
  })

  it('sees only the part of the buffer that a view covers', async () => {
    const source = bytesSource(bytes.subarray(10, 20))
    expect(source.size).toBe(10)
    expect([...(await source.read(0, 2))]).toEqual([10, 11])
    expect(bytesSource(new ArrayBuffer(5)).size).toBe(5)
  })
})

describe('blobSource', () => {
  it('reads parts of a blob', async () => {
    const source = blobSource(new Blob([bytes]))
    expect(source.size).toBe(64)
    expect([...(await source.read(60, 4))]).toEqual([60, 61, 62, 63])
    expect(source.name).toBeUndefined()
  })

  it('takes the name of a file', () => {
    expect(blobSource(new File([bytes], 'm.safetensors')).name).toBe('m.safetensors')
  })
})

describe('toSource', () => {
  it('takes a source as it is', async () => {
    const source: Source = { size: 1, read: async () => new Uint8Array(1) }
    expect(await toSource(source)).toBe(source)
  })

  it('refuses what cannot be opened', async () => {
    for (const bad of ['model.safetensors', null, undefined, 5, {}, { size: 5 }, { read() {} }]) {
      await expect(toSource(bad as unknown as Source)).rejects.toMatchObject({ code: 'bad-source' })
    }
    await expect(toSource('x' as unknown as Source)).rejects.toThrow('openSafetensorsFile')
    await expect(toSource(new URL('file:///x'))).rejects.toMatchObject({ code: 'bad-source' })
  })

  it('refuses a size that is not one', async () => {
    for (const size of [-1, 1.5, Number.NaN, 2 ** 60, Number.POSITIVE_INFINITY]) {
      const source: Source = { size, read: async () => new Uint8Array(1), name: 'n' }
      await expect(toSource(source)).rejects.toMatchObject({ code: 'bad-source', file: 'n' })
    }
  })
})

describe('readExactly', () => {
  function giving(read: Source['read']): Source {
    return { size: 64, read }
  }

  it('does not trouble the source for nothing', async () => {
    const source = giving(() => Promise.reject(new Error('called')))
    expect(await readExactly(source, 64, 0, place)).toEqual(new Uint8Array(0))
  })

  it('refuses too few and too many bytes', async () => {
    for (const length of [0, 3, 5]) {
      const source = giving(async () => new Uint8Array(length))
      await expect(readExactly(source, 0, 4, place)).rejects.toMatchObject({
        code: 'short-read',
        ...place,
      })
    }
  })

  it('refuses what is not bytes', async () => {
    const source = giving(async () => [1, 2] as unknown as Uint8Array)
    await expect(readExactly(source, 0, 2, place)).rejects.toMatchObject({ code: 'bad-source' })
  })

  it('gives aligned bytes that are not shared', async () => {
    const misaligned = await readExactly(
      giving(async () => bytes.subarray(1, 9)),
      1,
      8,
      place,
    )
    expect(misaligned.byteOffset % 8).toBe(0)
    expect([...misaligned]).toEqual([1, 2, 3, 4, 5, 6, 7, 8])
    const shared = new Uint8Array(new SharedArrayBuffer(8))
    const own = await readExactly(
      giving(async () => shared),
      0,
      8,
      place,
    )
    expect(own.buffer).toBeInstanceOf(ArrayBuffer)
  })

  it('wraps errors, keeps aborts, and explains missing memory', async () => {
    const broken = new Error('disk')
    await expect(
      readExactly(
        giving(() => Promise.reject(broken)),
        0,
        1,
        place,
      ),
    ).rejects.toMatchObject({ code: 'source-failed', cause: broken, ...place })
    const abort = AbortSignal.abort().reason
    await expect(
      readExactly(
        giving(() => Promise.reject(abort)),
        0,
        1,
        place,
      ),
    ).rejects.toBe(abort)
    const huge = giving(async (_, length) => new Uint8Array(length))
    await expect(readExactly(huge, 0, 2 ** 52, place)).rejects.toMatchObject({
      code: 'allocation-failed',
      tensor: 't',
    })
  })
})
