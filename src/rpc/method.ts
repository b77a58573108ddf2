/**
 * Descriptors of the calls of all services: path, kind, and how requests and replies become bytes. Built from the
 * generated definitions; knows nothing of any network.
 */
import { BadMessageError } from '../codec/bad-message-error.ts';

/** Turns messages of one type into bytes and back. */
export interface MessageCodec<T> {
  encode(message: T): Uint8Array;
  /** Byte fields of the result may be views of `bytes`. Throws on malformed input. */
  decode(bytes: Uint8Array): T;
}

export type MethodKind = 'unary' | 'client-stream' | 'server-stream' | 'bidi';

export interface Method<Request, Reply, Kind extends MethodKind = MethodKind> {
  /** Full method name such as `/pdpb.PD/GetRegion`. */
  readonly path: string;
  readonly kind: Kind;
  readonly request: MessageCodec<Request>;
  readonly reply: MessageCodec<Reply>;
}

export type UnaryMethod<Request, Reply> = Method<Request, Reply, 'unary'>;
/** Any kind with a stream on at least one side. */
export type StreamMethod<Request, Reply> = Method<Request, Reply, 'client-stream' | 'server-stream' | 'bidi'>;

/** @throws BadMessageError */
export function decodeMessage<T>(codec: MessageCodec<T>, bytes: Uint8Array, path: string): T {
  try {
    return codec.decode(bytes);
  } catch (cause) {
    throw cause instanceof BadMessageError ? cause : new BadMessageError(path, cause);
  }
}

// ---------------------------------------------------------------------------------------- from generated definitions

interface GeneratedMessage<T> {
  // Method syntax on purpose: the generated writers and readers are narrower types of the same shape.
  encode(message: T): { finish(): Uint8Array };
  decode(input: Uint8Array): T;
}

interface GeneratedMethod {
  readonly name: string;
  readonly requestType: unknown;
  readonly requestStream: boolean;
  readonly responseType: unknown;
  readonly responseStream: boolean;
}

interface GeneratedService {
  readonly fullName: string;
  readonly methods: Readonly<Record<string, GeneratedMethod>>;
}

type MessageOf<G> = G extends { decode(input: Uint8Array): infer T } ? T : never;

type KindOf<M extends GeneratedMethod> = M['requestStream'] extends true
  ? M['responseStream'] extends true
    ? 'bidi'
    : 'client-stream'
  : M['responseStream'] extends true
    ? 'server-stream'
    : 'unary';

/** The typed methods of a generated service definition, under the same (lower camel case) names. */
export type MethodsOf<S extends GeneratedService> = {
  readonly [K in keyof S['methods']]: Method<
    MessageOf<S['methods'][K]['requestType']>,
    MessageOf<S['methods'][K]['responseType']>,
    KindOf<S['methods'][K]>
  >;
};

/** A codec from a generated message type. */
export function generatedCodec<T>(generated: GeneratedMessage<T>): MessageCodec<T> {
  return {
    encode: (message) => generated.encode(message).finish(),
    decode: (bytes) => generated.decode(bytes),
  };
}

function kindOf(method: GeneratedMethod): MethodKind {
  if (method.requestStream) {
    return method.responseStream ? 'bidi' : 'client-stream';
  }
  return method.responseStream ? 'server-stream' : 'unary';
}

export function methodsOf<S extends GeneratedService>(service: S): MethodsOf<S> {
  const methods: Record<string, Method<unknown, unknown>> = {};
  for (const [key, method] of Object.entries(service.methods)) {
    methods[key] = {
      path: `/${service.fullName}/${method.name}`,
      kind: kindOf(method),
      request: generatedCodec(method.requestType as GeneratedMessage<unknown>),
      reply: generatedCodec(method.responseType as GeneratedMessage<unknown>),
    };
  }
  // The generated literal types guarantee that each entry has the type its key promises.
  return methods as unknown as MethodsOf<S>;
}
