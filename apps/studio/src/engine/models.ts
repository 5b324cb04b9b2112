/** A ModelSource → a folder, an opened checkpoint, and what there is to say about it. */

import { type Checkpoint, LowbitError } from '@lowbit/core'
import { type Folder, openFolder } from '@lowbit/formats'
import { placesOf, readWholeReport, tensorBytes } from '@lowbit/inspection'
import { decoderConfig } from '@lowbit/model'
import { demoFile } from './demo.ts'
import { directoryFolder, filesFolder } from './folders/picked.ts'
import { remoteFolder } from './folders/remote.ts'
import { resultFolder } from './jobs.ts'
import type { ModelFacts, ModelSource } from './protocol.ts'

const DEMO_FILES = [
  'config.json',
  'model.safetensors',
  'tokenizer.json',
  'tokenizer_config.json',
  'generation_config.json',
]
const DEMO_TEXTS = ['calibration.txt', 'evaluation.txt']
const HUB = 'https://huggingface.co'

export interface OpenedModel {
  readonly name: string
  readonly folder: Folder
  readonly checkpoint: Checkpoint
}

export async function openModel(source: ModelSource): Promise<OpenedModel> {
  const folder = await openSource(source)
  return { name: nameOf(source), folder, checkpoint: await openFolder(folder) }
}

export function nameOf(source: ModelSource): string {
  if (source.kind === 'demo') return 'demo'
  if (source.kind === 'hub' || source.kind === 'job') return source.id
  if (source.kind !== 'url') return source.name
  const parts = source.url.split('/').filter((part) => part && !/\.(safetensors|json)$/.test(part))
  return parts.at(-1) ?? source.url
}

async function openSource(source: ModelSource): Promise<Folder> {
  switch (source.kind) {
    case 'demo':
      return demoFolder()
    case 'files':
      return filesFolder(source.name, source.files)
    case 'directory':
      return directoryFolder(source.name, source.handle)
    case 'url':
      return remoteFolder(source.url)
    case 'hub':
      return hubFolder(source.id)
    case 'job':
      return resultFolder(source.id)
  }
}

let demo: Promise<Folder> | undefined

function demoFolder(): Promise<Folder> {
  demo ??= fetchDemo()
  demo.catch(() => {
    demo = undefined
  })
  return demo
}

/** Small enough to be fetched whole, so that it stays in the cache for working offline. */
async function fetchDemo(): Promise<Folder> {
  const files = await Promise.all(
    DEMO_FILES.map(async (name) => new File([await (await demoFile(name)).blob()], name)),
  )
  // Its texts are wanted later, when there may be no network.
  await Promise.all(DEMO_TEXTS.map((name) => demoFile(name).catch(() => {})))
  return filesFolder('demo', files)
}

async function hubFolder(id: string): Promise<Folder> {
  if (!/^[\w][\w.-]*\/[\w][\w.-]*$/.test(id)) {
    throw new LowbitError(
      'bad-address',
      `${JSON.stringify(id)} is no name of the hub; one is like HuggingFaceTB/SmolLM2-135M`,
    )
  }
  const { listFiles } = await import('@huggingface/hub')
  const names: string[] = []
  try {
    for await (const file of listFiles({ repo: { type: 'model', name: id } })) {
      if (file.type === 'file') names.push(file.path)
    }
  } catch (cause) {
    throw new LowbitError(
      'hub-failed',
      `the hub did not give a model of that name: ${(cause as Error).message}`,
      { file: id, cause },
    )
  }
  return remoteFolder(`${HUB}/${id}/resolve/main/`, names)
}

/** Whether the demo's texts are this model's: it is the demo, or has its tokenizer. */
async function speaksLikeDemo(source: ModelSource, checkpoint: Checkpoint): Promise<boolean> {
  if (source.kind === 'demo') return true
  const file = 'tokenizer.json'
  if (!checkpoint.files.includes(file)) return false
  const own = await checkpoint.readFile(file)
  const demo = new Uint8Array(await (await demoFile(file)).arrayBuffer())
  return own.length === demo.length && own.every((byte, i) => byte === demo[i])
}

export async function describe(source: ModelSource): Promise<ModelFacts> {
  const { name, folder, checkpoint } = await openModel(source)
  const config = decoderConfig(checkpoint.config)
  const names = await folder.list()
  const bytes = await tensorBytes(folder)
  const settings = checkpoint.files.includes('tokenizer_config.json')
    ? new TextDecoder().decode(await checkpoint.readFile('tokenizer_config.json'))
    : ''
  const report = await readWholeReport(folder)
  const facts: ModelFacts = {
    ...{ name, source, opening: crypto.randomUUID() },
    format: checkpoint.format,
    config: checkpoint.config,
    architecture: config.architecture.name,
    layers: config.layers,
    hidden: config.hidden,
    context: config.context,
    vocabulary: config.vocabulary,
    bytes,
    allModules: checkpoint.modules,
    modules: placesOf(checkpoint).filter(({ module }) => checkpoint.hasModule(module)),
    chats: settings.includes('"chat_template"') || names.includes('chat_template.jinja'),
    hasTexts: await speaksLikeDemo(source, checkpoint),
    ...(report && { report }),
  }
  await checkpoint.close()
  return facts
}
