import { readFile } from 'node:fs/promises'
import { describe, expect, it } from 'vitest'
import { openSafetensors, type Safetensors, writeSafetensors } from './index.ts'
import { openModelFolder } from './node.ts'

const folder = new URL('../fixtures/', import.meta.url)

function bytesOf(file: string): Promise<Uint8Array> {
  return readFile(new URL(file, folder))
}

async function rewrite(file: Safetensors): Promise<Uint8Array> {
  // Backwards, so that the writer has to find the order itself.
  const entries = [...file.tensors.values()].reverse().map(({ name, dtype, shape }) => ({
    name,
    dtype,
    shape,
    data: () => file.read(name),
  }))
  const metadata = file.metadata.size > 0 ? { metadata: file.metadata } : {}
  const parts: Uint8Array[] = []
  for await (const part of writeSafetensors(entries, metadata)) parts.push(part)
  return new Uint8Array(await new Blob(parts as Uint8Array<ArrayBuffer>[]).arrayBuffer())
}

describe('files of the reference library', () => {
  it.each([
    'numpy.safetensors',
    'narrow.safetensors',
    'no-tensors.safetensors',
    'sharded/model-00002-of-00002.safetensors',
  ])('are written again byte for byte: %s', async (name) => {
    const bytes = await bytesOf(name)
    const file = await openSafetensors(bytes, { name })
    expect(Buffer.compare(await rewrite(file), bytes)).toBe(0)
  })

  it('hold the values that NumPy wrote', async () => {
    const file = await openSafetensors(await bytesOf('numpy.safetensors'))
    const buffer = async (name: string) => (await file.read(name)).buffer
    expect([...file.metadata]).toEqual([['made by', 'safetensors (Python), numpy']])
    expect(new Float32Array(await buffer('f32'))).toEqual(
      Float32Array.of(0, -1.5, 3.25, Number.POSITIVE_INFINITY, 1e-8, -0),
    )
    expect(file.tensors.get('f32')?.shape).toEqual([2, 3])
    expect(new Uint16Array(await buffer('f16'))).toEqual(Uint16Array.of(0x3c00, 0xc000, 0x7bff))
    expect(new Float64Array(await buffer('f64'))).toEqual(Float64Array.of(Math.PI))
    expect(new BigInt64Array(await buffer('i64'))).toEqual(
      BigInt64Array.of(-(2n ** 63n), 2n ** 63n - 1n, 0n),
    )
    expect(new Uint16Array(await buffer('u16'))).toEqual(Uint16Array.of(0, 65535))
    expect(new Int8Array(await buffer('i8'))).toEqual(Int8Array.of(-128, 127, 0, 1, 2))
    expect(new Uint8Array(await buffer('bool'))).toEqual(Uint8Array.of(1, 0, 1))
    expect(new Float32Array(await buffer('c64'))).toEqual(Float32Array.of(1, 2))
    expect(new Float32Array(await buffer('scalar'))).toEqual(Float32Array.of(42.5))
    expect(file.tensors.get('scalar')?.shape).toEqual([])
    expect((await file.read('empty')).byteLength).toBe(0)
    expect(file.tensors.get('empty')?.shape).toEqual([0, 3])
  })

  it('hold narrow types and odd names', async () => {
    const file = await openSafetensors(await bytesOf('narrow.safetensors'))
    const list = async (name: string) => [...(await file.read(name))]
    expect(await list('bf16')).toEqual([0x80, 0x3f, 0x49, 0xc0])
    expect(await list('e4m3')).toEqual([0x38, 0xfe, 0x30])
    expect(await list('e5m2')).toEqual([0x3c, 0x7b])
    expect(await list('e8m0')).toEqual([127, 128])
    expect(await list('f4')).toEqual([0x21, 0x43, 0xf5])
    expect(file.tensors.get('f4')).toMatchObject({ dtype: 'F4', shape: [1, 6] })
    expect(await list('ünï/層.0😀')).toEqual([7])
    expect(await list('ünï/層.0\uffee')).toEqual([8])
    expect(await list('a "quoted"\n\\\x1f\x7fname')).toEqual([9])
  })

  it('make up a model in a folder', async () => {
    const model = await openModelFolder(new URL('sharded', folder).pathname)
    expect([...model.tensors.keys()]).toEqual(['layer.0.weight', 'layer.1.weight', 'bias'])
    expect([...model.metadata]).toEqual([['format', 'np']])
    const weight = await model.read('layer.1.weight')
    expect(new Float32Array(weight.buffer)).toEqual(Float32Array.of(6, 7, 8, 9, 10, 11))
    const part = await model.readRange('layer.0.weight', 4, 8)
    expect(new Float32Array(part.buffer)).toEqual(Float32Array.of(1, 2))
    await model.close()
    await expect(model.read('bias')).rejects.toMatchObject({ code: 'closed', tensor: 'bias' })
  })
})
