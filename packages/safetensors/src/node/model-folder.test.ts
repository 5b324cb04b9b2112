import { cp, mkdir, mkdtemp, rm, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { MAX_HEADER_BYTES } from '../header.ts'
import { openModelFolder } from './model-folder.ts'

const fixtures = fileURLToPath(new URL('../../fixtures', import.meta.url))
const SECOND = 'model-00002-of-00002.safetensors'
let folder = ''

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'safetensors-'))
})

afterEach(() => rm(folder, { recursive: true }))

describe('openModelFolder', () => {
  it('opens the one file', async () => {
    await cp(join(fixtures, 'numpy.safetensors'), join(folder, 'model.safetensors'))
    const model = await openModelFolder(folder)
    expect(model.tensors.size).toBe(10)
    await model.close()
  })

  it('opens the files of the index', async () => {
    await cp(join(fixtures, 'sharded'), folder, { recursive: true })
    const model = await openModelFolder(folder)
    expect(model.tensors.get('bias')?.file).toBe(SECOND)
    expect((await model.read('bias')).byteLength).toBe(12)
    await model.close()
  })

  it('names a file that is missing', async () => {
    await cp(join(fixtures, 'sharded'), folder, { recursive: true })
    await rm(join(folder, SECOND))
    await expect(openModelFolder(folder)).rejects.toMatchObject({
      code: 'missing-shard',
      file: SECOND,
    })
  })

  it('refuses an index that leads out of the folder', async () => {
    await cp(join(fixtures, 'numpy.safetensors'), join(folder, 'outside.safetensors'))
    const inner = join(folder, 'inner')
    await mkdir(inner)
    const index = { weight_map: { f32: '../outside.safetensors' } }
    await writeFile(join(inner, 'model.safetensors.index.json'), JSON.stringify(index))
    await expect(openModelFolder(inner)).rejects.toMatchObject({
      code: 'unsafe-file-name',
      tensor: 'f32',
    })
  })

  it('says what the folder has instead', async () => {
    await writeFile(join(folder, 'other.safetensors'), '')
    await expect(openModelFolder(folder)).rejects.toMatchObject({
      code: 'file-not-found',
      file: folder,
      detail: expect.stringContaining('other.safetensors'),
    })
    await expect(openModelFolder(join(folder, 'none'))).rejects.toMatchObject({
      code: 'file-not-found',
      detail: expect.stringContaining('no such folder'),
    })
  })

  it('does not take the index for missing when the one file is damaged', async () => {
    await cp(join(fixtures, 'sharded'), folder, { recursive: true })
    await writeFile(join(folder, 'model.safetensors'), '')
    await expect(openModelFolder(folder)).rejects.toMatchObject({ code: 'too-short' })
  })

  it('refuses an index of absurd size without reading it', async () => {
    const path = join(folder, 'model.safetensors.index.json')
    await writeFile(path, '')
    await truncate(path, MAX_HEADER_BYTES + 1)
    await expect(openModelFolder(folder)).rejects.toMatchObject({ code: 'bad-index', file: path })
  })
})
