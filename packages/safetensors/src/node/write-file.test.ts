import { mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { TensorData, TensorEntry } from '../plan.ts'
import { openSafetensorsFile } from './file-source.ts'
import { writeSafetensorsFile } from './write-file.ts'

let folder = ''
let path = ''

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'safetensors-'))
  path = join(folder, 'model.safetensors')
})

afterEach(() => rm(folder, { recursive: true }))

function entry(name: string, length: number, data: () => TensorData): TensorEntry {
  return { name, dtype: 'U8', shape: [length], data }
}

const good = [entry('a', 3, () => Uint8Array.of(1, 2, 3))]

describe('writeSafetensorsFile', () => {
  it('writes a file and nothing else, and tells its size', async () => {
    const size = await writeSafetensorsFile(path, good, { metadata: { k: 'v' } })
    expect(await readdir(folder)).toEqual(['model.safetensors'])
    expect((await stat(path)).size).toBe(size)
    const file = await openSafetensorsFile(path)
    expect([...(await file.read('a'))]).toEqual([1, 2, 3])
    expect(file.metadata.get('k')).toBe('v')
    await file.close()
  })

  it('refuses to overwrite unless it is told to', async () => {
    await writeFile(path, 'old')
    let asked = false
    const entries = [
      entry('a', 1, () => {
        asked = true
        return Uint8Array.of(1)
      }),
    ]
    await expect(writeSafetensorsFile(path, entries)).rejects.toMatchObject({
      code: 'file-exists',
      file: path,
    })
    expect(asked).toBe(false)
    expect(await readFile(path, 'utf8')).toBe('old')
    await writeSafetensorsFile(path, good, { overwrite: true })
    expect(await readdir(folder)).toEqual(['model.safetensors'])
    expect((await readFile(path)).length).toBeGreaterThan(3)
  })

  it('does not replace a file that came into being meanwhile', async () => {
    const entries = [
      entry('a', 1, async () => {
        await writeFile(path, 'theirs')
        return Uint8Array.of(1)
      }),
    ]
    await expect(writeSafetensorsFile(path, entries)).rejects.toMatchObject({ code: 'file-exists' })
    expect(await readFile(path, 'utf8')).toBe('theirs')
    expect(await readdir(folder)).toEqual(['model.safetensors'])
  })

  it('can replace the file that it reads from', async () => {
    await writeSafetensorsFile(path, good)
    const old = await openSafetensorsFile(path)
    const copied = entry('b', 3, () => old.read('a'))
    await writeSafetensorsFile(path, [copied], { overwrite: true })
    expect([...(await old.read('a'))]).toEqual([1, 2, 3])
    await old.close()
    const file = await openSafetensorsFile(path)
    expect([...(await file.read('b'))]).toEqual([1, 2, 3])
    await file.close()
  })

  it('leaves nothing behind on an error, and the old file as it was', async () => {
    await writeFile(path, 'old')
    const entries = [...good, entry('b', 3, () => Uint8Array.of(1))]
    await expect(writeSafetensorsFile(path, entries, { overwrite: true })).rejects.toMatchObject({
      code: 'data-length',
      tensor: 'b',
      file: path,
    })
    expect(await readdir(folder)).toEqual(['model.safetensors'])
    expect(await readFile(path, 'utf8')).toBe('old')
  })

  it('leaves nothing behind on an abort', async () => {
    const controller = new AbortController()
    const reason = new Error('enough')
    const entries = [
      ...good,
      entry('b', 1, () => {
        setTimeout(() => controller.abort(reason), 5)
        return new Promise<Uint8Array>(() => {})
      }),
    ]
    const { signal } = controller
    await expect(writeSafetensorsFile(path, entries, { signal })).rejects.toBe(reason)
    expect(await readdir(folder)).toEqual([])
    await expect(writeSafetensorsFile(path, good, { signal })).rejects.toBe(reason)
    expect(await readdir(folder)).toEqual([])
  })

  it('explains what the disk refuses', async () => {
    const nowhere = join(folder, 'none', 'model')
    await expect(writeSafetensorsFile(nowhere, good)).rejects.toMatchObject({
      code: 'write-failed',
      file: nowhere,
    })
    await mkdir(path)
    await writeFile(join(path, 'kept'), '')
    await expect(writeSafetensorsFile(path, good, { overwrite: true })).rejects.toMatchObject({
      code: 'write-failed',
    })
    expect(await readdir(folder)).toEqual(['model.safetensors'])
  })

  it('asks for the next part only when the one before is written', async () => {
    const sizes: number[] = []
    async function* parts(): AsyncGenerator<Uint8Array> {
      for (let index = 0; index < 4; index++) {
        const names = await readdir(folder)
        sizes.push((await stat(join(folder, names[0]))).size)
        yield new Uint8Array(1_000_000)
      }
    }
    await writeSafetensorsFile(path, [entry('a', 4_000_000, parts)])
    const head = sizes[0]
    expect(sizes).toEqual([head, head + 1e6, head + 2e6, head + 3e6])
  })
})
