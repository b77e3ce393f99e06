"""Usage of any provider, whole or streamed, to our token classes and meters: what it says, what it leaves open, and
what of it was not understood. Nothing here raises, whatever the bytes are.

read           start here: a whole answer, the lines of a batch, or a stream in chunks
usage          what one call used
slots          what the fields of any usage mean
classes        from slots to disjoint token classes
shapes         which family a usage object belongs to
openai         OpenAI's fields, and those of all who speak its interface
anthropic      Anthropic's fields, and the passes of one call
google         Gemini's and Vertex AI's fields
bedrock        Amazon Bedrock's fields, and single counts of others
documents      the parts of an answer that matter here
places         where an answer says what it used
answer         what the documents of one answer say together
parts          text, tools and images that an answer holds
framing        bytes to documents: server-sent events, lines, arrays
event_stream   bytes to documents: Amazon's binary framing
bounded        what is kept of a document that is too long
names          names of models, from answers and from paths
"""
