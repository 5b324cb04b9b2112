/** Generation with SmolLM2 by lowbit, transformers.js and wllama (ggml), each on the same adapter's WebGPU. */

import { type Folder, openFolder } from '@lowbit/formats'
import { webgpu } from '@lowbit/kernels-webgpu'
import { generate, loadDecoder } from '@lowbit/model'
import { bytesSource } from '@lowbit/safetensors'

export interface GenerationCase {
  readonly prompt: readonly number[]
  /** For wllama, which takes text: about as many tokens. */
  readonly text: string
  /** New tokens behind the first. */
  readonly tokens: number
}

export interface Generated {
  /** From the first token to the last. */
  readonly seconds: number
  readonly tokens: number
  /** The first tokens, for a glance at whether all say the same. */
  readonly says: string
}

/** Loads a model once, and gives what generates with it. */
export type Contestant = (what: GenerationCase) => Promise<Generated>

declare global {
  interface Window {
    prepareGeneration(who: keyof typeof CONTESTANTS): Promise<void>
    generation(what: GenerationCase): Promise<Generated>
  }
}

const CONTESTANTS = {
  lowbit: () => lowbit('f32'),
  'lowbit, int8': () => lowbit('int8'),
  'transformers.js': transformers,
  wllama: wllama,
} as const

window.prepareGeneration = async (who) => {
  window.generation = await CONTESTANTS[who]()
}

async function lowbit(activations: 'f32' | 'int8'): Promise<Contestant> {
  const kernels = await webgpu()
  const decoder = await loadDecoder(await openFolder(served('lowbit')), kernels, { activations })
  return async ({ prompt, tokens }) => {
    let [started, made] = [0, 0]
    const { tokens: found } = await generate(decoder, [...prompt], {
      maxTokens: tokens + 1,
      onToken() {
        if (made++ === 0) started = performance.now()
      },
    })
    const seconds = (performance.now() - started) / 1000
    return { seconds, tokens, says: found.slice(0, 6).join(' ') }
  }
}

/** Files of a folder that the site serves whole. */
function served(name: string): Folder {
  const read = async (file: string): Promise<Uint8Array> => {
    const response = await fetch(`models/${name}/${file}`)
    if (!response.ok) throw new Error(`there is no ${file}`)
    return new Uint8Array(await response.arrayBuffer())
  }
  const refuse = () => Promise.reject(new Error('what is served is not written to'))
  return {
    ...{ location: name, read, write: refuse, remove: refuse },
    list: async () => (await fetch(`models/${name}/files.json`)).json(),
    source: async (file) => bytesSource(await read(file)),
  }
}

interface Ids {
  readonly data: BigInt64Array
}
interface Transformers {
  readonly env: {
    allowRemoteModels: boolean
    allowLocalModels: boolean
    localModelPath: string
    backends: { onnx: { wasm: { wasmPaths: string; numThreads: number } } }
  }
  readonly Tensor: new (type: string, data: BigInt64Array, shape: readonly number[]) => Ids
  readonly AutoModelForCausalLM: {
    from_pretrained(
      name: string,
      options: object,
    ): Promise<{ generate(options: object): Promise<Ids> }>
  }
}

const load = <T>(file: string): Promise<T> =>
  import(/* @vite-ignore */ new URL(file, document.baseURI).href)

async function transformers(): Promise<Contestant> {
  const { env, Tensor, AutoModelForCausalLM } = await load<Transformers>(
    'peers/@huggingface/transformers/dist/transformers.min.js',
  )
  Object.assign(env, {
    ...{ allowRemoteModels: false, allowLocalModels: true, localModelPath: '/models/' },
  })
  env.backends.onnx.wasm.wasmPaths = new URL('ort/', document.baseURI).href
  const model = await AutoModelForCausalLM.from_pretrained('onnx', {
    ...{ dtype: 'q4', device: 'webgpu' },
  })
  const run = (prompt: readonly number[], more: number) =>
    model.generate({
      input_ids: new Tensor('int64', BigInt64Array.from(prompt, BigInt), [1, prompt.length]),
      attention_mask: new Tensor('int64', new BigInt64Array(prompt.length).fill(1n), [
        ...[1, prompt.length],
      ]),
      ...{ max_new_tokens: more, min_new_tokens: more, do_sample: false },
    })
  return async ({ prompt, tokens }) => {
    const timed = async (more: number) => {
      const started = performance.now()
      const { data } = await run(prompt, more)
      return { seconds: (performance.now() - started) / 1000, data }
    }
    // The time of the prompt and its first token is not that of generation.
    const first = await timed(1)
    const { seconds, data } = await timed(tokens + 1)
    const says = Array.from(data.slice(prompt.length, prompt.length + 6)).join(' ')
    return { seconds: seconds - first.seconds, tokens, says }
  }
}

interface Wllama {
  loadModel(blobs: readonly Blob[], options: object): Promise<void>
  createCompletion(options: object): Promise<AsyncIterable<unknown>>
}

async function wllama(): Promise<Contestant> {
  const { Wllama: Make } = await load<{ Wllama: new (paths: object, options: object) => Wllama }>(
    'peers/@wllama/wllama/esm/index.js',
  )
  const said: string[] = []
  const log = (...words: unknown[]) => said.push(words.join(' '))
  const logger = { debug: log, log, warn: log, error: log }
  const wasm = new URL('peers/@wllama/wllama/esm/wasm/wllama.wasm', document.baseURI).href
  const engine = new Make({ default: wasm }, { logger })
  const blob = await (await fetch('models/model.gguf')).blob()
  await engine.loadModel([blob], { n_ctx: 1024, n_gpu_layers: 99, warmup: false })
  if (!said.some((line) => /webgpu/i.test(line))) {
    const adapter = await navigator.gpu.requestAdapter()
    const why = adapter?.features.has('shader-f16') ? '' : '; the adapter has no f16'
    throw new Error(`it says nothing of WebGPU and would run on the processor${why}`)
  }
  return async ({ text, tokens }) => {
    const stream = await engine.createCompletion({
      ...{ prompt: text, max_tokens: tokens + 1, temperature: 0, top_k: 1 },
      ...{ cache_prompt: false, ignore_eos: true, stream: true },
    })
    let [started, made] = [0, 0]
    for await (const _ of stream) if (made++ === 0) started = performance.now()
    const seconds = (performance.now() - started) / 1000
    return { seconds, tokens: made - 1, says: said.find((line) => /webgpu/i.test(line)) ?? '' }
  }
}
