/** lowbit generate */

import { text as readStream } from 'node:stream/consumers'
import { LowbitError } from '@lowbit/core'
import { createMemory, generate, loadTokenizer } from '@lowbit/model'
import { type Command, Option } from 'commander'
import {
  addCacheFlags,
  type CacheChoice,
  type CacheFlags,
  cacheFor,
  readCache,
} from '../flags/cache.ts'
import { ACTIVATIONS, type Activations, addDeviceFlags, type DeviceFlags } from '../flags/device.ts'
import { parseNumber, wholeNumber } from '../flags/values.ts'
import { fittedCache } from '../model-source/fit-cache.ts'
import { loadModel } from '../model-source/load-model.ts'
import { openModel } from '../model-source/open-model.ts'
import { readCacheFile, restoreCache, writeCacheFile } from '../model-source/saved-cache.ts'
import type { Action } from '../program.ts'
import type { Session } from '../session.ts'
import { streamText } from '../terminal/stream-text.ts'

interface Flags extends DeviceFlags, CacheFlags {
  readonly prompt?: string
  readonly maxTokens: number
  readonly temperature: number
  readonly topK: number
  readonly topP: number
  readonly seed: number
  readonly chat?: boolean
  readonly cacheSave?: string
  readonly cacheLoad?: string
  readonly activations: Activations
}

export function define(command: Command, run: (action: Action) => Promise<void>): void {
  command
    .argument('<model>', 'a folder, a hub id (org/name), or demo')
    .argument('[prompt]', 'what to continue; standard input when there is none')
    .option('-p, --prompt <text>', 'the prompt, if you like it better as a flag')
    .option('-n, --max-tokens <n>', 'new tokens at most', wholeNumber(1, 10_000_000), 128)
    .option('--temperature <t>', '0 always takes the likeliest token', parseNumber({ least: 0 }), 0)
    .option('--top-k <n>', 'sample among the n likeliest; 0 is all', wholeNumber(0), 0)
    .option(
      '--top-p <p>',
      'sample among the likeliest of this total probability',
      parseNumber({ least: 0, most: 1 }),
      1,
    )
    .option('--seed <n>', 'seed of the sampling', wholeNumber(0, 2 ** 32 - 1), 0)
    .option('--chat', "put the prompt into the model's chat template")
    .addOption(
      new Option(
        '--activations <type>',
        'what quantized matrices are multiplied with: int8 is faster, f32 exact',
      )
        .choices(ACTIVATIONS)
        .default('int8'),
    )
  addCacheFlags(command)
  command
    .option('--cache-save <file>', 'write them to a file in the end')
    .option('--cache-load <file>', 'begin with those of a file, as far as the prompt is the same')
  addDeviceFlags(command)
  command.action((model: string, prompt: string | undefined, flags: Flags) =>
    run(async (session) =>
      continueText(model, prompt, await readCache(command, flags), flags, session),
    ),
  )
}

async function continueText(
  name: string,
  argument: string | undefined,
  choice: CacheChoice,
  flags: Flags,
  session: Session,
): Promise<void> {
  const prompt = await choosePrompt(argument, flags)
  const saved = flags.cacheLoad === undefined ? undefined : await readCacheFile(flags.cacheLoad)
  const model = await openModel(name, session)
  const scheme = await cacheFor(choice, model)
  const tokenizer = await loadTokenizer(model.checkpoint)
  const asked = flags.chat ? tokenizer.applyTemplate([{ role: 'user', content: prompt }]) : prompt
  const kernels = await session.kernels(flags, false)
  const { decoder } = await loadModel(model, kernels, flags.activations, session)
  const cache = await fittedCache(scheme, { model, decoder, tokenizer }, flags, session)
  const input = tokenizer.encode(asked)
  const held = saved && (await restoreCache(saved, decoder, cache))
  const memory = createMemory(decoder, { cache, held })
  const stream = streamText(tokenizer, input, (piece) => session.print(piece))
  session.onStop('')
  const done = await generate(decoder, input, {
    maxTokens: flags.maxTokens,
    temperature: flags.temperature,
    topK: flags.topK,
    topP: flags.topP,
    seed: flags.seed,
    stop: tokenizer.stop,
    memory,
    signal: session.signal,
    onToken: stream.push,
  })
  const text = stream.end()
  if (flags.cacheSave !== undefined) await writeCacheFile(flags.cacheSave, memory, decoder, cache)
  memory.dispose()
  const { tokens, promptTokens, reusedTokens, prefillSeconds, decodeSeconds, reason } = done
  // The first token comes out of the prompt's pass.
  const tokensPerSecond = tokens.length > 1 ? (tokens.length - 1) / decodeSeconds : null
  const prefillTokensPerSecond = (promptTokens - reusedTokens) / prefillSeconds
  session.result({
    model: name,
    cache: cache?.name ?? 'full',
    text,
    tokens: tokens.length,
    promptTokens,
    reusedTokens,
    tokensPerSecond,
    prefillTokensPerSecond,
    reason,
  })
  session.print('\n')
  const speed = tokensPerSecond === null ? '' : ` at ${tokensPerSecond.toFixed(1)} tokens/s`
  if (!session.json) {
    session.note(
      `${tokens.length} tokens${speed}, prompt of ${promptTokens}${reusedTokens > 0 ? ` (${reusedTokens} of them loaded)` : ''} at ${prefillTokensPerSecond.toFixed(0)} tokens/s`,
    )
  }
  if (reason === 'aborted') process.exitCode = 130
}

async function choosePrompt(argument: string | undefined, flags: Flags): Promise<string> {
  if (argument !== undefined && flags.prompt !== undefined) {
    throw new LowbitError(
      'bad-option',
      'the prompt was given twice: as an argument and as --prompt',
      {
        option: 'prompt',
      },
    )
  }
  const given = argument ?? flags.prompt
  if (given !== undefined) return given
  if (process.stdin.isTTY) {
    throw new LowbitError(
      'bad-option',
      'there is no prompt: give it as an argument, with --prompt, or on standard input',
      { option: 'prompt' },
    )
  }
  return (await readStream(process.stdin)).replace(/\n$/, '')
}
